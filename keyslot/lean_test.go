package keyslot_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

// blkcrypto.md invariant 36: when memory for keys has run out, a key in quarantine is
// none that gives memory back. A request that nothing can serve then fails, it does not
// wait for a slot that may never be idle; and one for which there is memory is served.
func TestLeanManagerDoesNotWaitForQuarantine(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprint("memory comes back: ", again), func(t *testing.T) {
			m, e := newManager(t, 2)
			a, b := newKey(t, "a"), newKey(t, "b")
			use(t, m, a)
			e.Fault = fault(enginetest.Evict, func(c enginetest.Call) bool { return c.Slot == 0 })
			if err := m.Evict(ctx, a.Key); err == nil {
				t.Fatal("the engine emptied a slot that it was told not to")
			}
			failed := 0
			e.Fault = func(c enginetest.Call) error {
				switch {
				case c.Slot == 0:
					return errFault
				case c.Op == enginetest.Program && (!again || failed == 0):
					failed++
					return fmt.Errorf("the test: %w", secret.ErrLimit)
				}
				return nil
			}
			short, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			s, err := m.Get(short, b.Key, false)
			if !errors.Is(err, secret.ErrLimit) || !errors.Is(err, keyslot.ErrProgram) {
				t.Errorf("get: %v, want %v", err, secret.ErrLimit)
			}
			s.Put()
			if again {
				use(t, m, b)
			}
		})
	}
}

// blkcrypto.md invariants 17 and 36: keys of several modes take memory of several
// kinds. A key for which the slot that was idle longest has the wrong kind is
// programmed into another that has the right one, also when the manager knows
// already that memory has run out.
func TestLeanManagerLooksForTheRightMemory(t *testing.T) {
	large := smallUnits
	large.DataUnitSize = 4096
	m, e := newManager(t, 3)
	a, b, c, d := newKey(t, "a"), newKeyOf(t, "b", large), newKey(t, "c"), newKeyOf(t, "d", large)
	kinds := map[int]blkcrypto.Config{}
	next := a.Config()
	e.Fault = func(c enginetest.Call) error {
		switch had, full := kinds[c.Slot]; {
		case c.Op == enginetest.Evict:
			delete(kinds, c.Slot)
		case c.Op == enginetest.Program && (full && had != next || !full && len(kinds) > 1):
			return fmt.Errorf("the test: %w", secret.ErrLimit)
		case c.Op == enginetest.Program:
			kinds[c.Slot] = next
		}
		return nil
	}
	for _, k := range []testKey{a, b, c, b, c, d, b, d} {
		next = k.Config()
		use(t, m, k)
	}
}
