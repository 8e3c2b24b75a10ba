package xts

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/test/vectors"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// runs tries one vector with the named implementation: as a data unit of its own
// size if that is whole blocks, and as one with ciphertext stealing, whose AES is
// that of data units of 512 bytes and their multiples: so that the assembly for
// long data units sees the short vectors too.
func runs(t *testing.T, name string, v vectors.Vector) {
	n := len(v.Plain)
	try := func(what string, c *Cipher, encrypt, decrypt func(dst, src []byte, tweak [2]uint64)) {
		got := make([]byte, n)
		encrypt(got, v.Plain, v.Number)
		dataunittest.Diff(t, "vector "+v.Name+what+" encrypted", got, v.Cipher)
		decrypt(got, v.Cipher, v.Number)
		dataunittest.Diff(t, "vector "+v.Name+what+" decrypted", got, v.Plain)
		encrypt(got, got, v.Number)
		dataunittest.Diff(t, "vector "+v.Name+what+" encrypted in place", got, v.Cipher)
		decrypt(got, got, v.Number)
		dataunittest.Diff(t, "vector "+v.Name+what+" decrypted in place", got, v.Plain)
		c.Wipe()
	}
	if n%blockLen == 0 {
		c := mustOpen(t, name, v.Key, n)
		try("", c, c.Encrypt, c.Decrypt)
	}
	c := mustOpen(t, name, v.Key, (n+511)/512*512)
	try(" as a part of a data unit", c, c.EncryptStealing, c.DecryptStealing)
}

// The published vectors; each file names its source.
func TestPublishedVectors(t *testing.T) {
	for _, set := range []struct {
		file  string
		count int
	}{
		{"ieee1619.txt", 19},
		{"nist-cavp.txt.gz", 1400},
		{"wycheproof.txt.gz", 123},
		{"linux-cryptoapi.txt.gz", 40},
	} {
		all := vectors.Read(t, "testdata/"+set.file, set.count)
		t.Run(set.file, func(t *testing.T) {
			each(t, func(t *testing.T, name string) {
				for _, v := range all {
					runs(t, name, v)
				}
			})
		})
	}
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

// What a Linux kernel's blk-crypto wrote, by its software fallback and by an
// emulated inline engine, with numbers that carry at 2^32 and 2^64.
func TestEqualsLinuxBlkCrypto(t *testing.T) {
	text, err := os.ReadFile("testdata/blkcrypto-aes-256-xts.json")
	if err != nil {
		t.Fatal(err)
	}
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
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 15 {
		t.Fatalf("%d vectors, want 15", len(file.Vectors))
	}
	sum := func(b []byte) string {
		s := sha256.Sum256(b)
		return hex.EncodeToString(s[:])
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
