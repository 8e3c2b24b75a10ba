package sm4xts

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"

	"keyway/internal/dataunit/dataunittest"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// mix makes the plaintext that the kernel vectors name by its seed: splitmix64.
func mix(seed uint64, n int) []byte {
	b := make([]byte, 0, n+8)
	for i := uint64(1); len(b) < n; i++ {
		z := seed + i*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		b = binary.LittleEndian.AppendUint64(b, z^z>>31)
	}
	return b[:n]
}

type vector struct{ Algorithm, Key, IV, Plain, Cipher string }

// whole is the number of bytes before the two blocks that ciphertext stealing
// mixes, if n is not whole blocks. The package has no stealing.
func whole(n int) int {
	if n%blockLen == 0 {
		return n
	}
	return (n/blockLen - 1) * blockLen
}

func (v vector) check(t *testing.T) {
	plain, want := unhex(t, v.Plain), unhex(t, v.Cipher)
	n := whole(len(plain))
	plain, want = plain[:n], want[:n]
	iv := unhex(t, v.IV)
	dun := [2]uint64{binary.LittleEndian.Uint64(iv), binary.LittleEndian.Uint64(iv[8:])}
	each(t, func(t *testing.T, name string) {
		c := mustOpen(t, name, unhex(t, v.Key), n)
		got := make([]byte, n)
		c.Encrypt(got, plain, dun)
		dataunittest.Diff(t, "encrypted", got, want)
		c.Decrypt(got, got, dun)
		dataunittest.Diff(t, "decrypted", got, plain)
	})
}

// Linux, crypto/testmgr.h: what the kernel tests its own xts(sm4) with.
func TestKernelTestmgrVectors(t *testing.T) {
	var file struct{ Vectors []vector }
	load(t, "testmgr-sm4-xts.json", &file)
	if len(file.Vectors) != 5 {
		t.Fatalf("%d vectors, want 5", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		v.check(t)
	}
}

// GB/T 17964-2021, annex B.7 (by way of gmsm's tests): the mode of the same name
// whose tweaks are numbered the other way round. The first block has the same
// tweak in both; the others must not.
func TestIsNotTheXTSOfGBT17964(t *testing.T) {
	key := unhex(t, "2b7e151628aed2a6abf7158809cf4f3c000102030405060708090a0b0c0d0e0f")
	plain := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
	other := unhex(t, "e9538251c71d7b80bbe4483fef497bd12c5c581bd6242fc51e08964fb4f60fdb")
	dun := [2]uint64{0xf7f6f5f4f3f2f1f0, 0xfffefdfcfbfaf9f8}
	each(t, func(t *testing.T, name string) {
		c := mustOpen(t, name, key, len(plain))
		got := make([]byte, len(plain))
		c.Encrypt(got, plain, dun)
		dataunittest.Diff(t, "first block", got[:blockLen], other[:blockLen])
		if bytes.Equal(got[blockLen:], other[blockLen:]) {
			t.Error("the second block is that of GB/T 17964")
		}
	})
}

// What a Linux kernel's crypto API made of random keys, for XTS and for the block
// cipher alone.
func TestEqualsLinuxCryptoAPI(t *testing.T) {
	var file struct{ Vectors []vector }
	load(t, "cryptoapi-sm4.json", &file)
	count := map[string]int{}
	for _, v := range file.Vectors {
		count[v.Algorithm]++
		switch v.Algorithm {
		case "xts(sm4)":
			v.check(t)
		case "ecb(sm4)":
			plain, want := unhex(t, v.Plain), unhex(t, v.Cipher)
			got := sliced(unhex(t, v.Key), plain, false)
			dataunittest.Diff(t, "ecb(sm4)", got, want)
			dataunittest.Diff(t, "ecb(sm4) decrypted", sliced(unhex(t, v.Key), got, true), plain)
		}
	}
	if count["xts(sm4)"] != 8 || count["ecb(sm4)"] != 4 {
		t.Errorf("%v, want 8 of xts(sm4) and 4 of ecb(sm4)", count)
	}
}

// sliced puts up to sixteen blocks through the bitsliced block cipher.
func sliced(key, src []byte, decrypt bool) []byte {
	var data, other schedule
	expand(&data, &other, append(key[:16:16], key...))
	var k slicedKeys
	k.slice(&data)
	var s state
	var buf [slicedSize]byte
	copy(buf[:], src)
	s.slice(&buf)
	if decrypt {
		s.decrypt(&k)
	} else {
		s.encrypt(&k)
	}
	s.unslice(&buf)
	return buf[:len(src)]
}

// What a Linux kernel's blk-crypto wrote, by its software fallback and by an
// emulated inline engine, with numbers that carry at 2^32 and 2^64: blkcrypto.md
// invariants 2 and 3.
func TestEqualsLinuxBlkCrypto(t *testing.T) {
	var file struct {
		Vectors []struct {
			Key    string
			Unit   int `json:"data_unit_size"`
			DUN    [4]uint64
			Length int
			Plain  struct {
				Pattern string
				Seed    uint64
				SHA256  string
			}
			SHA256 string   `json:"cipher_sha256"`
			First  []string `json:"cipher_first_32_of_each_unit"`
		}
	}
	load(t, "blkcrypto-sm4-xts.json", &file)
	if len(file.Vectors) != 15 {
		t.Fatalf("%d vectors, want 15", len(file.Vectors))
	}
	each(t, func(t *testing.T, name string) {
		for i, v := range file.Vectors {
			plain := mix(v.Plain.Seed, v.Length)
			if v.Plain.Pattern != "mix" || sum(plain) != v.Plain.SHA256 {
				t.Fatalf("vector %d: plaintext generator differs", i)
			}
			c := mustOpen(t, name, unhex(t, v.Key), v.Unit)
			got := make([]byte, v.Length)
			c.Encrypt(got, plain, [2]uint64{v.DUN[0], v.DUN[1]})
			for u, first := range v.First {
				if have := hex.EncodeToString(got[u*v.Unit:][:32]); have != first {
					t.Errorf("vector %d, dun %x, unit %d begins %s, want %s", i, v.DUN, u, have, first)
				}
			}
			if have := sum(got); have != v.SHA256 {
				t.Errorf("vector %d, dun %x: SHA-256 %s, want %s", i, v.DUN, have, v.SHA256)
			}
			c.Decrypt(got, got, [2]uint64{v.DUN[0], v.DUN[1]})
			dataunittest.Diff(t, "decrypted", got, plain)
		}
	})
}

// A disk that dm-crypt of Linux 6.12 wrote with sm4-xts-plain64: sector k is data
// unit k.
func TestReadsADiskOfDMCrypt(t *testing.T) {
	var disk struct {
		Cipher  string
		Key     string `json:"key_hex"`
		Image   struct{ Size int }
		Regions []struct {
			Offset, Length int
			Seed           uint64
			Plain          string `json:"plain_sha256"`
			Cipher         string `json:"cipher_sha256"`
		}
	}
	load(t, "sm4-xts.json", &disk)
	packed, err := os.ReadFile("testdata/sm4-xts.img.zst")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	image, err := z.DecodeAll(packed, nil)
	if err != nil || len(image) != disk.Image.Size || disk.Cipher != "sm4-xts-plain64" || len(disk.Regions) != 3 {
		t.Fatalf("%d bytes of %s, %d regions: %v", len(image), disk.Cipher, len(disk.Regions), err)
	}
	each(t, func(t *testing.T, name string) {
		c := mustOpen(t, name, unhex(t, disk.Key), 512)
		for _, r := range disk.Regions {
			on, dun := image[r.Offset:][:r.Length], [2]uint64{uint64(r.Offset / 512)}
			if sum(on) != r.Cipher {
				t.Fatalf("region at %d: the image differs from its manifest", r.Offset)
			}
			got := make([]byte, r.Length)
			c.Decrypt(got, on, dun)
			if sum(got) != r.Plain {
				t.Errorf("region at %d: plaintext has SHA-256 %s, want %s", r.Offset, sum(got), r.Plain)
			}
			dataunittest.Diff(t, "read", got, mix(r.Seed, r.Length))
			c.Encrypt(got, got, dun)
			dataunittest.Diff(t, "written again", got, on)
		}
	})
}
