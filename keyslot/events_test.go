package keyslot_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

// TestEngineTellsOfQuarantineAndReset: once when a slot goes into quarantine,
// however often the engine fails again, once when it comes out, and at the end of
// each reset how many keys are in place (dm-fscrypt.md, invariants 53 and 54).
func TestEngineTellsOfQuarantineAndReset(t *testing.T) {
	m, e := newManager(t, 2)
	var heard []string
	m.Observe(func(v keyslot.Event) {
		if v.Name != e.Name() || v.Err != nil && !errors.Is(v.Err, errFault) {
			t.Errorf("event %+v", v)
		}
		heard = append(heard, fmt.Sprint([]string{"quarantined", "cleared", "reset"}[v.Kind], " ", v.Slot, " ", v.Keys, " ", v.Err != nil))
	})
	want := func(after string, want ...string) {
		t.Helper()
		if !slices.Equal(heard, want) {
			t.Errorf("%s: told %q, want %q", after, heard, want)
		}
		heard = nil
	}
	a, b := newKey(t, "a"), newKey(t, "b")
	use(t, m, a)
	use(t, m, b)
	want("two programs")
	e.Fault = fault(enginetest.Evict, always)
	for range 2 {
		if err := m.Evict(ctx, a.Key); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
	}
	want("evictions that fail", "quarantined 0 1 true")
	if err := m.Reset(e.Lose); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	want("a reset after which a slot stays in quarantine", "reset -1 1 true")
	e.Fault = nil
	if err := m.Evict(ctx, a.Key); err != nil {
		t.Fatal(err)
	}
	want("an eviction that succeeds", "cleared 0 0 false")
	if err := m.Reset(e.Lose); err != nil {
		t.Fatal(err)
	}
	want("a reset", "reset -1 1 false")
	m.Observe(nil)
	if err := m.Reset(e.Lose); err != nil {
		t.Fatal(err)
	}
	want("a reset that nobody hears of")
}
