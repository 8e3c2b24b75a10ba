package soft

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/secret"
	"keyway/internal/secret/secrettest"
	"keyway/keyslot"
)

// blkcrypto.md invariant 36, race R20: when all the memory that may be locked is
// taken, keys that are there already are still served, with whatever slots and one
// reserved cipher there are. Without the reserve they are not.
func TestKeysAreServedWhenMemoryHasRunOut(t *testing.T) {
	secrettest.WithLimit(t, 1<<20, func() {
		m := keyslot.New(New("soft", 100))
		var keys []*blkcrypto.Key
		for i := range 3 {
			keys = append(keys, newKey(t, byte(i)))
		}
		release, err := m.Reserve(blkcrypto.AES256XTS)
		if err != nil {
			t.Fatal(err)
		}
		fill(t)
		for range 3 {
			for i, k := range keys {
				if err := crypt(m, k); err != nil {
					t.Errorf("key %d: %v", i, err)
				}
			}
		}
		if n := m.Stats().Resident; n != 1 {
			t.Errorf("%d keys are in slots, want the one for which there is memory", n)
		}
		// An eviction gives memory back, and the reserve is made anew of it.
		for i, k := range keys {
			if _, err := k.Evict(context.Background()); err != nil {
				t.Error(err)
			}
			if i == 1 {
				fill(t)
				if err := crypt(m, keys[2]); err != nil {
					t.Errorf("after an eviction: %v", err)
				}
			}
		}
		release()
		late := newKey(t, 9) // in the memory of those that are gone
		fill(t)
		if err := crypt(m, late); !errors.Is(err, secret.ErrLimit) || !errors.Is(err, keyslot.ErrProgram) {
			t.Errorf("without a reserve: %v, want %v", err, secret.ErrLimit)
		}
	})
}

func newKey(t *testing.T, seed byte) *blkcrypto.Key {
	b, err := secret.New(64)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.Bytes() {
		b.Bytes()[i] = seed + byte(3*i)
	}
	k, err := blkcrypto.NewKey(fmt.Sprint("k", seed), conf, b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func crypt(m *keyslot.Manager, k *blkcrypto.Key) error {
	s, err := m.Get(context.Background(), k, false)
	if err != nil {
		return err
	}
	defer s.Put()
	b := block.Bytes(make([]byte, 512))
	return s.Crypt(keyslot.Encrypt, blkcrypto.DUN{}, b, b)
}

// fill takes all memory that may be locked.
func fill(t *testing.T) {
	for n := 16 << 10; n > 0; n -= 16 { // each size has its own slabs
		for {
			if _, err := secret.New(n); errors.Is(err, secret.ErrLimit) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}
