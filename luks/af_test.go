package luks

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math/rand/v2"
	"testing"
)

// naiveMerge follows the words of the specification: d(0) = 0,
// d(k) = H(d(k-1) xor s(k)), key = d(n-1) xor s(n), where H replaces each run of a
// digest's length by the digest of its number before it.
func naiveMerge(src []byte, n int, newHash func() hash.Hash) []byte {
	d := make([]byte, n)
	for ; len(src) > n; src = src[n:] {
		var mixed []byte
		for i := range n {
			mixed = append(mixed, d[i]^src[i])
		}
		d = naiveDiffuse(mixed, newHash)
	}
	for i := range d {
		d[i] ^= src[i]
	}
	return d
}

func naiveDiffuse(b []byte, newHash func() hash.Hash) (out []byte) {
	size := newHash().Size()
	for i := 0; i*size < len(b); i++ {
		part := b[i*size : min(len(b), (i+1)*size)]
		h := newHash()
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(i)))
		h.Write(part)
		out = append(out, h.Sum(nil)[:len(part)]...)
	}
	return out
}

func TestAFMergeIsNaive(t *testing.T) {
	seed := uint64(1)
	rng := rand.New(rand.NewPCG(seed, 2))
	for name, std := range map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New} {
		h, err := newHash(name)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Wipe()
		for _, n := range []int{1, 16, 20, 21, 32, 33, 48, 64, 65, 96, 130} {
			for _, stripes := range []int{1, 2, 3, 17, 400} {
				src := make([]byte, n*stripes)
				for i := range src {
					src[i] = byte(rng.Uint32())
				}
				before := bytes.Clone(src)
				got := bytes.Repeat([]byte{0x5a}, n)
				afMerge(got, src, h)
				if want := naiveMerge(src, n, std); !bytes.Equal(got, want) {
					t.Fatalf("%d stripes of %d bytes, hash of %d: %x, want %x (seed %d)", stripes, n, h.Size(), got, want, seed)
				}
				if !bytes.Equal(src, before) {
					t.Fatal("the stripes have changed")
				}
			}
		}
	}
}

// Vectors of RFC 6070. The fixtures test the other hashes, and Argon2.
func TestKDFVectors(t *testing.T) {
	for _, c := range []struct {
		kdf  KDF
		pass string
		want string
	}{
		{KDF{Type: "pbkdf2", Hash: "sha1", Iterations: 4096, Salt: []byte("salt")}, "password", "4b007901b765489abead49d926f721d065a429c1"},
		{KDF{Type: "pbkdf2", Hash: "sha1", Iterations: 1, Salt: []byte("salt")}, "password", "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
	} {
		want, err := hex.DecodeString(c.want)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if err := c.kdf.derive(context.Background(), got, []byte(c.pass)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%+v: %x, want %x", c.kdf, got, want)
		}
	}
}
