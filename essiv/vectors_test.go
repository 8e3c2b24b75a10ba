package essiv

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/test/fixtures"
	"keyway/test/vectors"
)

// Each file names its source.
func TestKernelVectors(t *testing.T) {
	for _, set := range []struct {
		file  string
		count int
	}{
		{"linux-testmgr.txt", 5},
		{"linux-cryptoapi.txt.gz", 10},
	} {
		all := vectors.Read(t, "testdata/"+set.file, set.count)
		t.Run(set.file, func(t *testing.T) {
			each(t, func(t *testing.T, name string) {
				for _, v := range all {
					c, got := mustOpen(t, name, v.Key, len(v.Plain)), make([]byte, len(v.Plain))
					c.Encrypt(got, v.Plain, v.Number)
					dataunittest.Diff(t, "vector "+v.Name+" encrypted", got, v.Cipher)
					c.Decrypt(got, v.Cipher, v.Number)
					dataunittest.Diff(t, "vector "+v.Name+" decrypted", got, v.Plain)
				}
			})
		})
	}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mix is the plaintext that the kernel was given for a seed.
func mix(t *testing.T, seed uint64, n int, sha256 string) []byte {
	t.Helper()
	plain := fixtures.Pattern("mix", seed, n)
	if sum(plain) != sha256 {
		t.Fatal("the plaintext generator differs")
	}
	return plain
}

// What a Linux kernel's blk-crypto wrote, by its software fallback and by an
// emulated inline engine, with numbers that carry at 2^32 and 2^64.
func TestEqualsLinuxBlkCrypto(t *testing.T) {
	var file struct {
		Vectors []fixtures.Vector
	}
	load(t, "testdata/blkcrypto-aes-128-cbc-essiv.json", &file)
	if len(file.Vectors) != 15 {
		t.Fatalf("%d vectors, want 15", len(file.Vectors))
	}
	each(t, func(t *testing.T, name string) {
		for i, v := range file.Vectors {
			plain, dun := v.Plain(), [2]uint64{v.DUN[0], v.DUN[1]}
			c, got := mustOpen(t, name, v.Key(), v.DataUnitSize), make([]byte, v.Length)
			c.Encrypt(got, plain, dun)
			for u, head := range v.Heads {
				if have := hex.EncodeToString(got[u*v.DataUnitSize:][:32]); have != head {
					t.Errorf("vector %d, dun %x, unit %d begins %s, want %s", i, v.DUN, u, have, head)
				}
			}
			if have := sum(got); have != v.CipherSHA256 {
				t.Errorf("vector %d, dun %x: SHA-256 %s, want %s", i, v.DUN, have, v.CipherSHA256)
			}
			c.Decrypt(got, got, dun)
			dataunittest.Diff(t, "decrypted", got, plain)
		}
	})
}

// What dm-crypt wrote with aes-cbc-essiv:sha256 and capi:essiv(cbc(aes),sha256).
func TestEqualsDMCrypt(t *testing.T) {
	var file struct {
		Regions []struct {
			Disk         string
			Key          string
			Unit, Length int
			Number, Step uint64
			Seed         uint64
			PlainSHA256  string `json:"plain_sha256"`
			CipherSHA256 string `json:"cipher_sha256"`
		}
	}
	load(t, "testdata/dmcrypt.json", &file)
	if len(file.Regions) != 12 {
		t.Fatalf("%d regions, want 12", len(file.Regions))
	}
	each(t, func(t *testing.T, name string) {
		for _, r := range file.Regions {
			plain := mix(t, r.Seed, r.Length, r.PlainSHA256)
			c, got := mustOpen(t, name, unhex(t, r.Key), r.Unit), make([]byte, r.Length)
			run := r.Length
			if r.Step != 1 { // the numbers of neighbours are not
				run = r.Unit
			}
			runAll := func(op func(dst, src []byte, dun [2]uint64)) {
				for at := 0; at < r.Length; at += run {
					op(got[at:at+run], got[at:at+run], [2]uint64{r.Number + uint64(at/r.Unit)*r.Step})
				}
			}
			copy(got, plain)
			runAll(c.Encrypt)
			if have := sum(got); have != r.CipherSHA256 {
				t.Errorf("%s, number %d: SHA-256 %s, want %s", r.Disk, r.Number, have, r.CipherSHA256)
			}
			runAll(c.Decrypt)
			dataunittest.Diff(t, r.Disk+" decrypted", got, plain)
		}
	})
}

func load(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
