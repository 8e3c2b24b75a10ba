package fscrypt_test

import (
	"bytes"
	"crypto/aes"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"math"
	"testing"

	"keyway/blkcrypto"
	"keyway/fscrypt"
)

func counting(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(from + i)
	}
	return b
}

func master(t *testing.T, raw []byte) *fscrypt.MasterKey {
	t.Helper()
	m, err := fscrypt.NewMasterKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Wipe)
	return m
}

func ext4() fscrypt.FileSystem { return fscrypt.Ext4([16]byte(counting(0x80, 16)), 4096, true) }

// v2 is a policy for m.
func v2(m *fscrypt.MasterKey, contents, names fscrypt.Mode, flags fscrypt.Flags) fscrypt.Policy {
	return fscrypt.Policy{Version: 2, Contents: contents, Names: names, Flags: flags, Key: m.Spec()}
}

func v1(m *fscrypt.MasterKey, contents, names fscrypt.Mode, flags fscrypt.Flags) fscrypt.Policy {
	spec, _ := m.DescriptorSpec()
	return fscrypt.Policy{Version: 1, Contents: contents, Names: names, Flags: flags, Key: spec}
}

func mustOpen(t *testing.T, m *fscrypt.MasterKey, fs fscrypt.FileSystem, p fscrypt.Policy, nonce byte, inode uint64) *fscrypt.File {
	t.Helper()
	f, err := fscrypt.Open(m, fs, fscrypt.Context{Policy: p, Nonce: [16]byte(bytes.Repeat([]byte{nonce}, 16))}, inode)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// keyBytes are those of the key of a file's contents.
func keyBytes(t *testing.T, f *fscrypt.File) (b []byte) {
	t.Helper()
	k, err := f.NewKey("test")
	if err != nil {
		t.Fatal(err)
	}
	k.Program(nil, func(key []byte) error { b = bytes.Clone(key); return nil })
	return b
}

// blkcrypto.md, section 10.4, which agrees with the reference tool of xfstests.
func TestIdentifierOfRawKey(t *testing.T) {
	if got, want := master(t, counting(1, 64)).Spec().String(), "69b2f6edeee720cce0577937eb8a6751"; got != want {
		t.Errorf("identifier %s, want %s", got, want)
	}
}

func TestDescriptorIsTheHashOfTheHash(t *testing.T) {
	raw := counting(7, 64)
	one := sha512.Sum512(raw)
	two := sha512.Sum512(one[:])
	m := master(t, raw)
	if got, ok := m.DescriptorSpec(); !ok || !bytes.Equal(got.Bytes(), two[:8]) || !m.Is(got) {
		t.Errorf("descriptor %v, want %x", got, two[:8])
	}
	own, err := fscrypt.NewMasterKeyAs(raw, [8]byte{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Wipe()
	if !own.Is(fscrypt.DescriptorSpec([8]byte{1, 2})) || !own.Is(m.Spec()) {
		t.Error("a key is not known under the descriptor it was given")
	}
	if spec, _ := m.DescriptorSpec(); own.Is(spec) {
		t.Error("a key with a descriptor of its own is known under the other one")
	}
}

// derivePerFile is HKDF for a file of its own, by the standard library.
func derivePerFile(t *testing.T, raw, nonce []byte, n int) []byte {
	t.Helper()
	b, err := hkdf.Key(sha512.New, raw, nil, "fscrypt\x00\x02"+string(nonce), n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The derivations once more, by the standard library.
func TestKeysOfContents(t *testing.T) {
	raw := counting(3, 64)
	m, fs := master(t, raw), ext4()
	derived := func(context byte, n int, extra ...byte) []byte {
		b, err := hkdf.Key(sha512.New, raw, nil, "fscrypt\x00"+string(append([]byte{context}, extra...)), n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ecb := func(n int) []byte {
		b, _ := aes.NewCipher(bytes.Repeat([]byte{9}, 16))
		out := make([]byte, n)
		for i := 0; i < n; i += 16 {
			b.Encrypt(out[i:], raw[i:])
		}
		return out
	}
	nonce := bytes.Repeat([]byte{9}, 16)
	for _, c := range []struct {
		name string
		p    fscrypt.Policy
		want []byte
	}{
		{"per file", v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), derived(2, 64, nonce...)},
		{"per file, 16 bytes", v2(m, fscrypt.AES128CBCESSIV, fscrypt.AES128CBCCTS, 0), derived(2, 16, nonce...)},
		{"per file, SM4", v2(m, fscrypt.SM4XTS, fscrypt.SM4CBCCTS, 0), derived(2, 32, nonce...)},
		{"DIRECT_KEY", v2(m, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey), derived(3, 32, 9)},
		{"IV_INO_LBLK_64", v2(m, fscrypt.AES256XTS, fscrypt.AES256HCTR2, fscrypt.InoLblk64), derived(4, 64, append([]byte{1}, fs.UUID[:]...)...)},
		{"IV_INO_LBLK_32", v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk32), derived(6, 64, append([]byte{1}, fs.UUID[:]...)...)},
		{"v1", v1(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), ecb(64)},
		{"v1, 16 bytes", v1(m, fscrypt.AES128CBCESSIV, fscrypt.AES128CBCCTS, 0), ecb(16)},
		{"v1, DIRECT_KEY", v1(m, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey), raw[:32]},
	} {
		if got := keyBytes(t, mustOpen(t, m, fs, c.p, 9, 5)); !bytes.Equal(got, c.want) {
			t.Errorf("%s: key %x, want %x", c.name, got, c.want)
		}
	}
}

// sipNaive is SipHash-2-4 as its authors write it down, one word of state an array's.
func sipNaive(key, m []byte) uint64 {
	k := [2]uint64{binary.LittleEndian.Uint64(key), binary.LittleEndian.Uint64(key[8:])}
	v := [4]uint64{}
	for i, s := range []string{"somepseu", "dorandom", "lygenera", "tedbytes"} {
		v[i] = binary.BigEndian.Uint64([]byte(s)) ^ k[i%2]
	}
	rounds := func(n int) {
		for range n {
			for _, x := range [][5]int{{0, 1, 13, 32, 0}, {2, 3, 16, 0, 2}, {0, 3, 21, 0, 0}, {2, 1, 17, 32, 2}} {
				v[x[0]] += v[x[1]]
				v[x[1]] = v[x[1]]<<x[2] | v[x[1]]>>(64-x[2])
				v[x[1]] ^= v[x[0]]
				v[x[4]] = v[x[4]]<<x[3] | v[x[4]]>>(64-x[3])
			}
		}
	}
	padded := append(append([]byte(nil), m...), make([]byte, 7-len(m)%8)...)
	for p := append(padded, byte(len(m))); len(p) > 0; p = p[8:] {
		w := binary.LittleEndian.Uint64(p)
		v[3] ^= w
		rounds(2)
		v[0] ^= w
	}
	v[2] ^= 0xff
	rounds(4)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

func TestDirHash(t *testing.T) {
	// The reference's first vectors: key 00..0f, messages 00, 00 01, ...
	for n, want := range map[int]string{0: "310e0edd47db6f72", 1: "fd67dc93c539f874", 8: "6224939a79f5f593", 15: "e545be4961ca29a1"} {
		if got := hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, sipNaive(counting(0, 16), counting(0, n)))); got != want {
			t.Fatalf("the test's own SipHash of %d bytes: %s, want %s", n, got, want)
		}
	}
	raw := counting(3, 32)
	m := master(t, raw)
	f := mustOpen(t, m, ext4(), v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), 9, 5)
	h, err := f.DirHash()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Wipe()
	key, err := hkdf.Key(sha512.New, raw, nil, "fscrypt\x00\x05"+string(bytes.Repeat([]byte{9}, 16)), 16)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 40 {
		if got, want := h.Sum(counting(0, n)), sipNaive(key, counting(0, n)); got != want {
			t.Errorf("hash of %d bytes: %x, want %x", n, got, want)
		}
	}
	old := mustOpen(t, m, ext4(), v1(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), 9, 5)
	if _, err := old.DirHash(); err == nil {
		t.Error("a directory with a v1 policy has hashes that need a key")
	}
}

// dm-fscrypt.md, section 12.4.
func TestNumbersOfDataUnits(t *testing.T) {
	raw := counting(3, 64)
	m, fs := master(t, raw), ext4()
	key, err := hkdf.Key(sha512.New, raw, nil, "fscrypt\x00\x07", 16)
	if err != nil {
		t.Fatal(err)
	}
	hash := uint32(sipNaive(key, binary.LittleEndian.AppendUint64(nil, 77)))
	small := v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0)
	small.Log2DataUnit = 9
	for _, c := range []struct {
		name      string
		p         fscrypt.Policy
		off       int64
		want      blkcrypto.DUN
		dun, unit int
	}{
		{"default", v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), 5 << 12, blkcrypto.DUN{5}, 4, 4096},
		{"default, last", v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), (math.MaxUint32 - 1) << 12, blkcrypto.DUN{math.MaxUint32 - 1}, 4, 4096},
		{"512 bytes", small, 5<<12 + 512, blkcrypto.DUN{41}, 5, 512},
		{"DIRECT_KEY", v2(m, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey), 5 << 12, blkcrypto.DUN{5, 0x0909090909090909, 0x0909090909090909}, 24, 4096},
		{"IV_INO_LBLK_64", v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk64), 5 << 12, blkcrypto.DUN{77<<32 | 5}, 8, 4096},
		{"IV_INO_LBLK_32", v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk32), 5 << 12, blkcrypto.DUN{uint64(hash + 5)}, 4, 4096},
		{"IV_INO_LBLK_32, wrapped", v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk32), int64(-hash+3) << 12, blkcrypto.DUN{3}, 4, 4096},
	} {
		f := mustOpen(t, m, fs, c.p, 9, 77)
		if got, err := f.DUN(c.off); err != nil || got != c.want {
			t.Errorf("%s: number at %d is %x (%v), want %x", c.name, c.off, got, err, c.want)
		}
		if got := f.Config(); got.DUNBytes != c.dun || got.DataUnitSize != c.unit || got.Check() != nil {
			t.Errorf("%s: %v, want %d DUN bytes and units of %d", c.name, got, c.dun, c.unit)
		}
		for _, off := range []int64{-4096, fs.MaxFileSize, 100} {
			if got, err := f.DUN(off); err == nil {
				t.Errorf("%s: the number at %d is %x", c.name, off, got)
			}
		}
	}
}

// The numbers begin anew where a request has to end, and nowhere else.
func TestContiguousEndsWhereNumbersWrap(t *testing.T) {
	m := master(t, counting(3, 64))
	f := mustOpen(t, m, ext4(), v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk32), 9, 77)
	first, err := f.DUN(0)
	if err != nil {
		t.Fatal(err)
	}
	wrap := int64(1<<32-first[0]) << 12 // offset of number 0
	for _, c := range []struct{ off, n, want int64 }{
		{wrap - 8192, 8192, 8192}, {wrap - 8192, 12288, 8192}, {wrap - 4096, 1 << 20, 4096}, {wrap, 1 << 20, 1 << 20}, {0, 4096, 4096},
	} {
		if got := f.Contiguous(c.off, c.n); got != c.want {
			t.Errorf("%d bytes from %d on: %d, want %d", c.n, c.off, got, c.want)
		}
	}
	if d, err := f.DUN(wrap); err != nil || d != (blkcrypto.DUN{}) {
		t.Errorf("the number after the last is %x (%v), want 0", d, err)
	}
	other := mustOpen(t, m, ext4(), v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk64), 9, 77)
	if got := other.Contiguous(wrap-4096, 1<<20); got != 1<<20 {
		t.Errorf("IV_INO_LBLK_64 ends after %d bytes", got)
	}
}

// One blkcrypto.Key serves what Linux encrypts with one key, and nothing else.
func TestWhichFilesShareAKey(t *testing.T) {
	m, fs := master(t, counting(3, 64)), ext4()
	elsewhere := fs
	elsewhere.UUID[0]++
	xts := func(f fscrypt.Flags) fscrypt.Policy { return v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, f) }
	direct := v2(m, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey)
	small := xts(fscrypt.InoLblk64)
	small.Log2DataUnit = 10
	again := master(t, counting(3, 64))
	short := fscrypt.F2FS(fs.UUID, 4096) // its files may have 2^32 data units of 1024 bytes
	for _, c := range []struct {
		name string
		a, b *fscrypt.File
		same bool
	}{
		{"one file", mustOpen(t, m, fs, xts(0), 1, 5), mustOpen(t, m, fs, xts(0), 1, 5), true},
		{"files with nonces", mustOpen(t, m, fs, xts(0), 1, 5), mustOpen(t, m, fs, xts(0), 2, 6), false},
		{"IV_INO_LBLK_64", mustOpen(t, m, fs, xts(8), 1, 5), mustOpen(t, m, fs, xts(8), 2, 6), true},
		{"IV_INO_LBLK_32", mustOpen(t, m, fs, xts(16), 1, 5), mustOpen(t, m, fs, xts(16), 2, 6), true},
		{"both", mustOpen(t, m, fs, xts(8), 1, 5), mustOpen(t, m, fs, xts(16), 1, 5), false},
		{"padding of names", mustOpen(t, m, fs, xts(8), 1, 5), mustOpen(t, m, fs, xts(8|3), 2, 6), true},
		{"file systems", mustOpen(t, m, fs, xts(8), 1, 5), mustOpen(t, m, elsewhere, xts(8), 1, 5), false},
		{"DIRECT_KEY", mustOpen(t, m, fs, direct, 1, 5), mustOpen(t, m, elsewhere, direct, 2, 5), true},
		{"data units", mustOpen(t, m, short, xts(8), 1, 5), mustOpen(t, m, short, small, 1, 5), false},
		{"a key added twice", mustOpen(t, m, fs, xts(8), 1, 5), mustOpen(t, again, fs, xts(8), 1, 5), false},
	} {
		if got := c.a.KeyID() == c.b.KeyID(); got != c.same {
			t.Errorf("%s: share a key %v, want %v (%v, %v)", c.name, got, c.same, c.a.KeyID(), c.b.KeyID())
		}
		if c.same && (c.a.Config() != c.b.Config() || !bytes.Equal(keyBytes(t, c.a), keyBytes(t, c.b))) {
			t.Errorf("%s: what shares a key has two", c.name)
		}
	}
}
