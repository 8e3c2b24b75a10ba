package xts

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// IEEE 1619-2007, annex B: the vectors whose length is whole blocks. The long
// plaintexts are the bytes 00 to ff, twice, or the ciphertext of an earlier
// vector; only the ends of the ciphertexts are kept here, with the naive
// reference between them.
func TestIEEE1619Vectors(t *testing.T) {
	count := make([]byte, 512)
	for i := range count {
		count[i] = byte(i)
	}
	const (
		e128 = "2718281828459045235360287471352631415926535897932384626433832795"
		e256 = "27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592"
	)
	for _, v := range []struct {
		name, key    string
		tweak        uint64
		plain        []byte
		first, final string
	}{
		{"1", strings.Repeat("00", 32), 0, make([]byte, 32),
			"917cf69ebd68b2ec9b9fe9a3eadda692", "cd43d2f59598ed858c02c2652fbf922e"},
		{"2", strings.Repeat("11", 16) + strings.Repeat("22", 16), 0x3333333333, unhex(t, strings.Repeat("44", 32)),
			"c454185e6a16936e39334038acef838b", "fb186fff7480adc4289382ecd6d394f0"},
		{"3", "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0" + strings.Repeat("22", 16), 0x3333333333, unhex(t, strings.Repeat("44", 32)),
			"af85336b597afc1a900b2eb21ec949d2", "92df4c047e0b21532186a5971a227a89"},
		{"4", e128, 0, count, "27a7479befa1d476489f308cd4cfa6e2", ""},
		{"10", e256, 0xff, count, "1c3b3a102f770386e4836c99e370cf9b", ""},
		{"11", e256, 0xffff, count, "77a31251618a15e6b92d1d66dffe7b50", ""},
		{"12", e256, 0xffffff, count, "e387aaa58ba483afa7e8eb469778317e", ""},
		{"13", e256, 0xffffffff, count, "bf53d2dade78e822a4d949a9bc6766b0", ""},
		{"14", e256, 0xffffffffff, count, "64497e5a831e4a932c09be3e5393376d", ""},
	} {
		key, n := unhex(t, v.key), len(v.plain)
		want := make([]byte, n)
		naiveXTS(want, v.plain, key, n, [2]uint64{v.tweak}, false)
		dataunittest.Diff(t, "naive reference, vector "+v.name, want, unhex(t, v.first))
		dataunittest.Diff(t, "naive reference, end of vector "+v.name, want[n-len(v.final)/2:], unhex(t, v.final))
		each(t, func(t *testing.T, name string) {
			got := make([]byte, n)
			c := mustOpen(t, name, key, n)
			c.Encrypt(got, v.plain, [2]uint64{v.tweak})
			dataunittest.Diff(t, "vector "+v.name, got, want)
			c.Decrypt(got, got, [2]uint64{v.tweak})
			dataunittest.Diff(t, "vector "+v.name+" decrypted", got, v.plain)
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
