package pbkdf2

import (
	"bytes"
	"context"
	stdpbkdf2 "crypto/pbkdf2"
	"encoding/hex"
	"hash"
	"math/rand/v2"
	"testing"
	"time"

	"keyway/internal/digest"
)

var background = context.Background()

// RFC 6070 for SHA-1, RFC 7914 section 11 for SHA-256.
func TestVectors(t *testing.T) {
	for _, c := range []struct {
		hash, pass, salt string
		n                int
		want             string
	}{
		{"sha1", "password", "salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
		{"sha1", "password", "salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
		{"sha1", "password", "salt", 4096, "4b007901b765489abead49d926f721d065a429c1"},
		{"sha1", "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"},
		{"sha1", "pass\x00word", "sa\x00lt", 4096, "56fa6aa75548099dcc37d7f03425e0c3"},
		{"sha256", "passwd", "salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc" +
			"49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"},
		{"sha256", "Password", "NaCl", 80000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56" +
			"a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"},
	} {
		got := make([]byte, len(c.want)/2)
		if err := Key(background, got, []byte(c.pass), []byte(c.salt), c.hash, c.n); err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%s, %q, %q, %d: %x, want %s", c.hash, c.pass, c.salt, c.n, got, c.want)
		}
	}
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func std(t testing.TB, name string, pass, salt []byte, iterations, n int) []byte {
	want, err := stdpbkdf2.Key(func() hash.Hash {
		h, err := digest.New(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Wipe)
		return h.Hash
	}, string(pass), salt, iterations, n)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func TestEqualsStandardLibrary(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for _, name := range digest.Names() {
		for range 20 {
			pass, salt, iterations := random(r, r.IntN(300)), random(r, r.IntN(100)), 1+r.IntN(30)
			got := make([]byte, 1+r.IntN(200))
			if err := Key(background, got, pass, salt, name, iterations); err != nil {
				t.Fatal(err)
			}
			if want := std(t, name, pass, salt, iterations, len(got)); !bytes.Equal(got, want) {
				t.Fatalf("%s, %x, %x, %d (seed %d): %x, want %x", name, pass, salt, iterations, seed, got, want)
			}
		}
	}
}

func BenchmarkKey(b *testing.B) {
	for _, name := range digest.Names() {
		b.Run(name, func(b *testing.B) {
			const n = 100000
			var began, took time.Duration
			dst := make([]byte, 20)
			for b.Loop() {
				began = cpu()
				if err := Key(background, dst, []byte("passphrase"), []byte("somesalt"), name, n); err != nil {
					b.Fatal(err)
				}
				took += cpu() - began
			}
			b.ReportMetric(float64(took)/float64(b.N)/n, "cpu-ns/iteration")
		})
	}
}
