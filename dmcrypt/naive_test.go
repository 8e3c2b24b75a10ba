package dmcrypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/emmansun/gmsm/sm4"
	"golang.org/x/crypto/ripemd160" //lint:ignore SA1019 for media that exist
	"golang.org/x/crypto/twofish"
	"golang.org/x/crypto/xts"

	"keyway/test/naive"
)

// A naive cipher of one sector: by the standard library where it has it, else as
// the descriptions say, with no regard to speed.

func open(t *testing.T, name string, key []byte) cipher.Block {
	t.Helper()
	var b cipher.Block
	var err error
	switch name {
	case "aes":
		b, err = aes.NewCipher(key)
	case "sm4":
		b, err = sm4.NewCipher(key)
	case "twofish":
		b, err = twofish.NewCipher(key)
	case "camellia", "serpent": // held against others elsewhere
		made, e := newBlock(name, key)
		if e == nil {
			t.Cleanup(made.Wipe)
		}
		b, err = oneBlock{made}, e
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type oneBlock struct{ block }

func (o oneBlock) BlockSize() int          { return 16 }
func (o oneBlock) Encrypt(dst, src []byte) { o.block.Encrypt(dst[:16], src[:16]) }
func (o oneBlock) Decrypt(dst, src []byte) { o.block.Decrypt(dst[:16], src[:16]) }

func le64(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func pad16(b []byte) []byte { return append(b, make([]byte, 16-len(b))...) }

func sum(h hash.Hash, b []byte) []byte { h.Write(b); return h.Sum(nil) }

// naiveIV is the IV of the sector numbered n in units of the IV, before any that
// depends on data.
func naiveIV(t *testing.T, p Spec, b cipher.Block, key, extra []byte, n uint64, sector int) []byte {
	iv := make([]byte, 16)
	switch p.iv {
	case "plain":
		binary.LittleEndian.PutUint32(iv, uint32(n))
	case "plain64":
		binary.LittleEndian.PutUint64(iv, n)
	case "plain64be":
		binary.BigEndian.PutUint64(iv[8:], n)
	case "benbi":
		x := new(big.Int).Mul(new(big.Int).SetUint64(n), big.NewInt(32))
		x.Add(x, big.NewInt(1)).And(x, new(big.Int).SetUint64(^uint64(0))).FillBytes(iv)
	case "essiv":
		h := map[string]hash.Hash{"sha1": sha1.New(), "sha256": sha256.New(), "sha224": sha256.New224(), "md5": md5.New(), "rmd160": ripemd160.New()}[p.hash]
		open(t, p.block, sum(h, key)).Encrypt(iv, pad16(le64(n)))
	case "eboiv", "elephant":
		b.Encrypt(iv, pad16(le64(n*uint64(sector))))
	case "tcw":
		for i := range iv {
			iv[i] = extra[i] ^ le64(n)[i%8]
		}
	}
	return iv
}

func naiveEncrypt(t *testing.T, p Spec, o Options, key, plain []byte, at uint64) []byte {
	l, err := p.layout(len(key))
	if err != nil {
		t.Fatal(err)
	}
	extra, first := key[len(key)-l.extra:], key[:l.each]
	key = key[int(at%uint64(p.keys))*l.each:][:l.each]
	n := at
	if o.LargeIV {
		n /= uint64(o.SectorSize / 512)
	}
	out := make([]byte, len(plain))
	switch p.chain {
	case "xts":
		var iv [16]byte
		c, err := xts.NewCipher(func(k []byte) (cipher.Block, error) { return open(t, p.block, k), nil }, key)
		if err != nil {
			t.Fatal(err)
		}
		copy(iv[:], naiveIV(t, p, nil, key, extra, n, o.SectorSize))
		if binary.LittleEndian.Uint64(iv[8:]) != 0 {
			t.Fatal("this oracle has IVs of 64 bits only")
		}
		c.Encrypt(out, plain, binary.LittleEndian.Uint64(iv[:]))
		return out
	case "lrw":
		naiveLRW(open(t, p.block, key[:len(key)-16]), out, plain, key[len(key)-16:], naiveIV(t, p, nil, key, extra, n, o.SectorSize))
		return out
	case "hctr2":
		naive.HCTR2(key, out, plain, append(naiveIV(t, p, nil, key, extra, n, o.SectorSize), make([]byte, 16)...), false)
		return out
	case "ecb":
		for i := 0; i < len(plain); i += 16 {
			open(t, p.block, key).Encrypt(out[i:], plain[i:])
		}
		return out
	}
	b := open(t, p.block, key)
	// The offset is encrypted with the first key whichever the sector has.
	iv := naiveIV(t, p, open(t, p.block, first), key, extra, n, o.SectorSize)
	data := bytes.Clone(plain)
	switch p.iv {
	case "lmk":
		iv = naiveLMK(t, extra, plain, n)
	case "elephant":
		naiveElephant(t, data, extra, n*uint64(o.SectorSize))
	}
	cipher.NewCBCEncrypter(b, iv).CryptBlocks(out, data)
	if p.iv == "tcw" {
		naiveWhiten(out, extra[16:], n)
	}
	return out
}

// naiveLRW multiplies polynomials as they are written.
func naiveLRW(b cipher.Block, out, plain, key, iv []byte) {
	number, k := new(big.Int).SetBytes(iv), new(big.Int).SetBytes(key)
	modulus, _ := new(big.Int).SetString("100000000000000000000000000000087", 16)
	for i := 0; i < len(plain); i += 16 {
		product := new(big.Int)
		for j := range number.BitLen() {
			if number.Bit(j) != 0 {
				product.Xor(product, new(big.Int).Lsh(k, uint(j)))
			}
		}
		for n := product.BitLen(); n > 128; n = product.BitLen() {
			product.Xor(product, new(big.Int).Lsh(modulus, uint(n-129)))
		}
		mask := product.FillBytes(make([]byte, 16))
		subtle.XORBytes(out[i:], plain[i:][:16], mask)
		b.Encrypt(out[i:], out[i:])
		subtle.XORBytes(out[i:], out[i:][:16], mask)
		number.Add(number, big.NewInt(1))
		number.SetBit(number, 128, 0)
	}
}

// naiveLMK takes the state out of what the library marshals.
func naiveLMK(t *testing.T, seed, plain []byte, n uint64) []byte {
	h := md5.New()
	if len(seed) > 0 {
		h.Write(append(bytes.Clone(seed), make([]byte, 48)...))
	}
	h.Write(plain[16:])
	for _, w := range []uint32{uint32(n), uint32(n>>32)&0x00ffffff | 0x80000000, 4024, 0} {
		h.Write(binary.LittleEndian.AppendUint32(nil, w))
	}
	state, err := h.(interface{ MarshalBinary() ([]byte, error) }).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var iv []byte
	for i := range 4 {
		iv = binary.LittleEndian.AppendUint32(iv, binary.BigEndian.Uint32(state[4+4*i:]))
	}
	return iv
}

func naiveElephant(t *testing.T, data, key []byte, offset uint64) {
	b := open(t, "aes", key)
	var ks [32]byte
	e := pad16(le64(offset))
	b.Encrypt(ks[:], e)
	e[15] = 128
	b.Encrypt(ks[16:], e)
	d := make([]uint32, len(data)/4)
	for i := range data {
		data[i] ^= ks[i%32]
	}
	for i := range d {
		d[i] = binary.LittleEndian.Uint32(data[4*i:])
	}
	rotate := func(x uint32, n int) uint32 { return x<<n | x>>(32-n) }
	m := len(d)
	for range 5 {
		for i := m - 1; i >= 0; i-- {
			d[i] -= d[(i+m-2)%m] ^ rotate(d[(i+m-5)%m], []int{9, 0, 13, 0}[i%4])
		}
	}
	for range 3 {
		for i := m - 1; i >= 0; i-- {
			d[i] -= d[(i+2)%m] ^ rotate(d[(i+5)%m], []int{0, 10, 0, 25}[i%4])
		}
	}
	for i := range d {
		binary.LittleEndian.PutUint32(data[4*i:], d[i])
	}
}

func naiveWhiten(out, secret []byte, n uint64) {
	buf := make([]byte, 16)
	for i := range buf {
		buf[i] = secret[i] ^ le64(n)[i%8]
	}
	var q []byte
	for i := 0; i < 16; i += 4 {
		var crc uint32
		for _, b := range buf[i : i+4] {
			crc ^= uint32(b)
			for range 8 {
				crc = crc>>1 ^ crc&1*crc32.IEEE
			}
		}
		q = binary.LittleEndian.AppendUint32(q, crc)
	}
	for i := range out {
		out[i] ^= q[i%8] ^ q[12-i%8/4*4+i%4]
	}
}

// TestAgainstNaive compares every IV mode, with one key and more, every sector
// size and both ways to count, with the naive cipher.
func TestAgainstNaive(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	for _, c := range []struct {
		cipher string
		key    int
	}{
		{"aes-cbc-plain", 16}, {"aes-cbc-plain64", 24}, {"aes-cbc-plain64be", 32}, {"aes-cbc-benbi", 16}, {"aes-cbc-null", 32},
		{"aes-cbc-essiv:sha256", 16}, {"aes-cbc-essiv:sha256", 24}, {"aes-cbc-essiv:sha256", 32}, {"twofish-cbc-essiv:sha256", 32},
		{"aes-cbc-eboiv", 24}, {"aes-cbc-elephant", 32}, {"aes-cbc-elephant", 48}, {"aes-cbc-elephant", 64},
		{"aes-cbc-lmk", 32}, {"aes:64-cbc-lmk", 64 * 16}, {"aes:64-cbc-lmk", 65 * 16}, {"aes-cbc-tcw", 48}, {"aes-cbc-tcw", 64},
		{"aes:4-cbc-plain64", 4 * 24}, {"aes:2-cbc-essiv:sha256", 64}, {"aes:2-xts-plain64", 64}, {"aes:2-cbc-eboiv", 32}, {"aes:2-cbc-tcw", 64},
		{"aes-xts-plain", 32}, {"aes-xts-plain64", 48}, {"aes-xts-null", 64}, {"twofish-xts-plain64", 64}, {"twofish-xts-plain", 48},
		{"twofish-cbc-plain64", 16}, {"sm4-cbc-plain64", 16}, {"sm4-cbc-benbi", 16}, {"sm4-xts-plain64", 32}, {"aes-ecb", 32}, {"sm4-ecb", 16}, {"twofish-ecb", 24},
		{"aes-hctr2-plain64", 16}, {"aes-hctr2-plain", 24}, {"aes-hctr2-plain64", 32}, {"aes-lrw-benbi", 32}, {"aes-lrw-plain64be", 40}, {"twofish-lrw-benbi", 48},
		{"camellia-cbc-plain64", 24}, {"camellia-xts-plain64", 64}, {"camellia-lrw-benbi", 32}, {"camellia-cbc-essiv:sha256", 16}, {"aes-cbc-essiv:md5", 32},
		{"serpent-cbc-essiv:sha1", 32}, {"serpent-cbc-essiv:rmd160", 16}, {"aes:2-cbc-essiv:md5", 32}, {"aes:2-hctr2-plain64", 64},
	} {
		for _, size := range []int{512, 1024, 2048, 4096} {
			for _, large := range []bool{false, true} {
				p, err := Parse(c.cipher)
				if err != nil {
					t.Fatal(err)
				}
				if p.CheckSector(size) != nil {
					continue
				}
				o := Options{size, large}
				key := make([]byte, c.key)
				r.Read(key)
				k, err := New(p, o, key)
				if err != nil {
					t.Fatal(err)
				}
				step, many := uint64(size/512), 3
				if size == 512 && p.chain == "cbc" { // side by side
					many = lanes + 3
				}
				for _, at := range []uint64{0, step, 1<<32 - step, 1 << 40, 1<<63 + 5*step, -step} {
					plain := make([]byte, many*size)
					r.Read(plain)
					var want []byte
					for i := range many {
						want = append(want, naiveEncrypt(t, p, o, key, plain[i*size:][:size], at+uint64(i)*step)...)
					}
					got := make([]byte, len(plain))
					k.Encrypt(got, plain, at)
					if !bytes.Equal(got, want) {
						t.Errorf("%s, %d bytes of key, %+v, sector %d: got %x..., want %x...", c.cipher, c.key, o, at, got[:16], want[:16])
					}
					k.Decrypt(got, got, at)
					if !bytes.Equal(got, plain) {
						t.Errorf("%s, %d bytes of key, %+v, sector %d: back %x..., want %x...", c.cipher, c.key, o, at, got[:16], plain[:16])
					}
				}
				k.Wipe()
			}
		}
	}
}

// TestLRWNumbersCarry: sectors whose blocks have numbers that carry out of the low
// half, or out of all 128 bits, as no IV mode has them.
func TestLRWNumbersCarry(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	key := make([]byte, 48)
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	l, err := newLRW("aes", key)
	if err != nil {
		t.Fatal(err)
	}
	defer l.wipe()
	const m = ^uint64(0)
	for _, number := range [][2]uint64{{0, m - 3}, {1, m - 5}, {7, m}, {m - 1, m - 30}, {m, m - 3}, {m, m}, {1 << 63, 1}} {
		iv := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, number[0]), number[1])
		plain := make([]byte, 1024)
		for i := range plain {
			plain[i] = byte(r.Uint32())
		}
		want, got, s := make([]byte, len(plain)), make([]byte, len(plain)), new(scratch)
		naiveLRW(open(t, "aes", key[:32]), want, plain, key[32:], iv)
		copy(s.iv[:], iv)
		l.encrypt(got, plain, s)
		if !bytes.Equal(got, want) {
			t.Errorf("from number %x on: got %x..., want %x...", number, got[:64], want[:64])
		}
		copy(s.iv[:], iv)
		l.decrypt(got, got, s)
		if !bytes.Equal(got, plain) {
			t.Errorf("from number %x on, decrypted: got %x..., want %x...", number, got[:64], plain[:64])
		}
	}
}

// TestSerpentBoxes compares the polynomials with the tables of the submission.
func TestSerpentBoxes(t *testing.T) {
	for n, s := range []string{"38f1a65bed42709c", "fc27905a1be86d34", "86793cafd1e40b52", "0fb8c963d124a75e", "1f83c0b6254a9e7d", "f52b4a9c03e8d671", "72c5846be91fd3a0", "1df0e82b74ca9356"} {
		for x := range 16 {
			want, err := hex.DecodeString("0" + s[x:x+1])
			if err != nil {
				t.Fatal(err)
			}
			plane := func(i int) uint32 { return -uint32(x >> i & 1) }
			a, b, c, d := serpentBox(n, plane(0), plane(1), plane(2), plane(3))
			if got := byte(a&1 | b&2 | c&4 | d&8); got != want[0] {
				t.Errorf("S-box %d of %x: %x, want %x", n, x, got, want)
			}
			a, b, c, d = serpentInverse(n, a, b, c, d)
			if got := int(a&1 | b&2 | c&4 | d&8); got != x {
				t.Errorf("inverse S-box %d: %x, want %x", n, got, x)
			}
		}
	}
}
