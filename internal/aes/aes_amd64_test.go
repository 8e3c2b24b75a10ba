//go:build amd64 && !purego

package aes

import (
	"bytes"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func TestGenerateChangesNothing(t *testing.T) {
	dataunittest.Generated(t, "aes", "aes_amd64.s", "stubs_amd64.go")
}

func TestAssemblyClearsVectorRegistersBeforeReturning(t *testing.T) {
	dataunittest.Clears(t, "aes_amd64.s", 8)
}

// A CPU with VAES uses the narrow functions for what is left over only, so they
// are held against the wide ones for whole passes too.
func TestNarrowAndWideFunctionsAgree(t *testing.T) {
	if !hardware || !vaes {
		t.Skip("this CPU has not both")
	}
	r := seeded(t)
	for _, size := range []int{16, 24, 32} {
		b := mustBlocks(t, dataunittest.Random(r, size), true)
		src := dataunittest.Random(r, 5*vaesBlocks*BlockSize)
		got, want := make([]byte, len(src)), make([]byte, len(src))
		encryptBlocksAESNI(b.enc, b.rounds, &want[0], &src[0], 5*vaesBlocks)
		encryptBlocksVAES(b.enc, b.rounds, &got[0], &src[0], 5*vaesBlocks)
		if !bytes.Equal(got, want) {
			t.Errorf("AES-%d: encryptions differ", size*8)
		}
		decryptBlocksAESNI(b.dec, b.rounds, &want[0], &want[0], 5*vaesBlocks)
		decryptBlocksVAES(b.dec, b.rounds, &got[0], &got[0], 5*vaesBlocks)
		if !bytes.Equal(got, src) || !bytes.Equal(want, src) {
			t.Errorf("AES-%d: decryptions differ", size*8)
		}
	}
}

// The ratio decides whether the wide functions are worth their size.
func BenchmarkNarrowAndWide(b *testing.B) {
	if !vaes {
		b.Skip("no VAES")
	}
	c, buf := mustBlocks(b, make([]byte, 32), true), make([]byte, 64*BlockSize)
	for _, v := range []struct {
		name string
		f    func(keys *byte, rounds int, dst, src *byte, blocks int)
	}{{"AESNI", encryptBlocksAESNI}, {"VAES", encryptBlocksVAES}} {
		b.Run(v.name, func(b *testing.B) {
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				v.f(c.enc, c.rounds, &buf[0], &buf[0], 64)
			}
		})
	}
}
