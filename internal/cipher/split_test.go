package cipher

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
)

// A run is the same ciphertext whoever takes part in it: blkcrypto.md invariant 3.
func TestSplitRunsAreTheSame(t *testing.T) {
	for _, m := range supported() {
		for _, by := range []struct {
			unit      int
			numbering blkcrypto.Numbering
		}{{512, blkcrypto.ByUnit}, {4096, blkcrypto.ByUnit}, {4096, blkcrypto.BySector}} {
			unit := by.unit
			t.Run(fmt.Sprint(m, "/", unit, "/", by.numbering), func(t *testing.T) {
				u, err := NewUnits(blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: 8, Numbering: by.numbering}, key(m))
				if err != nil {
					t.Fatal(err)
				}
				defer u.Wipe()
				for _, n := range []int{unit, 64 << 10, 100 << 12, 1 << 20} {
					plain := make([]byte, n)
					for i := range plain {
						plain[i] = byte(i * 5)
					}
					for _, dun := range []blkcrypto.DUN{{7}, {1<<32 - 3}, {1<<64 - 20}} {
						if dun[0] > 1<<63 && m.IVSize() < 16 {
							continue
						}
						want, have := make([]byte, n), make([]byte, n)
						u.one(true, dun, want, plain)
						u.split(true, dun, have, plain)
						if !bytes.Equal(have, want) {
							t.Fatalf("%d bytes from %x on: another ciphertext", n, dun)
						}
						u.split(false, dun, have, have)
						if !bytes.Equal(have, plain) {
							t.Fatalf("%d bytes from %x on: decryption in place does not give the plaintext", n, dun)
						}
					}
				}
				u.splitFrom = unit // through the front door, several at once
				want := make([]byte, 64*unit)
				u.one(true, blkcrypto.DUN64(1), want, want)
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						b := make([]byte, len(want))
						if err := u.Crypt(true, blkcrypto.DUN64(1), block.Bytes(b), block.Bytes(b)); err != nil || !bytes.Equal(b, want) {
							t.Errorf("%v, or another ciphertext", err)
						}
					})
				}
				wg.Wait()
				if splitting.Load() {
					t.Error("the turn to split was not given back")
				}
			})
		}
	}
}
