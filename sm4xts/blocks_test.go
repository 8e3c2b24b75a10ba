package sm4xts_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/emmansun/gmsm/sm4"

	"keyway/internal/dataunit/dataunittest"
	"keyway/sm4xts"
)

// TestBlocks compares single blocks, of odd and even number, with gmsm.
func TestBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for n := range 5 {
		key, plain := dataunittest.Random(r, 16), dataunittest.Random(r, 16*n)
		b, err := sm4xts.NewBlocks(key)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := sm4.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, len(plain))
		for i := 0; i < len(plain); i += 16 {
			peer.Encrypt(want[i:i+16], plain[i:i+16])
		}
		got := bytes.Clone(plain)
		b.Encrypt(got, got)
		if !bytes.Equal(got, want) {
			t.Errorf("%d blocks: %x, want %x", n, got, want)
		}
		b.Decrypt(got, want)
		if !bytes.Equal(got, plain) {
			t.Errorf("%d blocks back: %x, want %x", n, got, plain)
		}
		b.Wipe()
		b.Wipe()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("use after Wipe did not panic")
				}
			}()
			b.Encrypt(got, got)
		}()
	}
	if _, err := sm4xts.NewBlocks(make([]byte, 32)); err == nil {
		t.Error("a key of 32 bytes is taken")
	}
}
