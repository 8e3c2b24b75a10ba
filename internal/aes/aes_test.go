package aes

import (
	"bytes"
	stdaes "crypto/aes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// The standard library is the second opinion; its own tests hold the vectors of
// FIPS 197.
func TestBlocksEqualTheStandardLibrary(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, size := range []int{16, 24, 32} {
		for n := range 20 {
			t.Run(fmt.Sprintf("AES-%d/%d", size*8, n), func(t *testing.T) {
				key, src := random(r, size), random(r, n*BlockSize)
				ref, err := stdaes.NewCipher(key)
				if err != nil {
					t.Fatal(err)
				}
				want := make([]byte, len(src))
				for i := 0; i < len(src); i += BlockSize {
					ref.Encrypt(want[i:], src[i:])
				}
				b, err := NewBlocks(key)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Wipe()
				got, plain := make([]byte, len(src)), bytes.Clone(src)
				b.Encrypt(got, src)
				if !bytes.Equal(got, want) || !bytes.Equal(src, plain) {
					t.Errorf("ciphertext %x, want %x", got, want)
				}
				b.Decrypt(got, got)
				if !bytes.Equal(got, plain) {
					t.Errorf("plaintext %x, want %x", got, plain)
				}
			})
		}
	}
}

func TestBlocksRefuseOtherKeySizes(t *testing.T) {
	for _, n := range []int{0, 15, 17, 33, 64} {
		if _, err := NewBlocks(make([]byte, n)); err == nil {
			t.Errorf("key of %d bytes accepted", n)
		}
	}
}

func TestNoAllocationPerCall(t *testing.T) {
	b, err := NewBlocks(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	buf := make([]byte, 5*BlockSize)
	if n := testing.AllocsPerRun(50, func() { b.Encrypt(buf, buf); b.Decrypt(buf, buf) }); n != 0 {
		t.Errorf("%v allocations per call, want 0", n)
	}
}
