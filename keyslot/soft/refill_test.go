package soft

import (
	"context"
	"testing"

	"keyway/blkcrypto"
	"keyway/internal/secret/secrettest"
	"keyway/keyslot"
)

// blkcrypto.md invariant 36: the spare that was used when memory ran out is made
// again of what an eviction gives back, before anybody else has it. So keys are
// served also when all that were in slots have gone and memory runs out once more.
func TestTheReserveIsMadeAnewByAnEviction(t *testing.T) {
	secrettest.WithLimit(t, 1<<20, func() {
		m := keyslot.New(New("soft", 100))
		first, second := newKey(t, 1), newKey(t, 2)
		release, err := m.Reserve(blkcrypto.AES256XTS)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		fill(t)
		for _, k := range []*blkcrypto.Key{first, second} {
			if err := crypt(m, k); err != nil {
				t.Fatalf("with the reserve: %v", err)
			}
			if err := m.Evict(context.Background(), k); err != nil {
				t.Fatal(err)
			}
			fill(t)
		}
	})
}
