//go:build invariants || race

package keyslot_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"keyway/block"
	"keyway/internal/interleave"
	"keyway/keyslot/enginetest"
)

// R5: an eviction races a reset that puts keys back: the evicted one stays out and the
// other one is in place (invariants 19 to 21).
func TestRace05EvictAgainstReset(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points: []string{"blkcrypto: dead", "keyslot: evicting", "keyslot: leaving", "keyslot: emptying", "keyslot: emptied",
			"keyslot: resetting", "keyslot: lost", "keyslot: programming"},
		World: func(w *interleave.World) {
			r := newRaceWorld(w, 2)
			ks := newKeys(w, 2)
			use(w, r.m, ks[0])
			use(w, r.m, ks[1])
			w.Go("evict", func() {
				mustEvict(w, ks[0])
				r.wantGone(ks[0])
			})
			w.Go("reset", func() {
				if err := r.m.Reset(r.e.Lose); err != nil {
					w.Error(err)
				}
				if in := r.e.Where(ks[1].bytes); len(in) != 1 {
					w.Errorf("after the reset the key in use is in slots %v, want one (invariant 20)", in)
				}
			})
			w.Check(func() { r.wantGone(ks[0]); r.wantOneSlotEach(ks[1]) })
		},
	})
}

// R5 with a request for a third key, which may need the slot meanwhile.
func TestRace05EvictAgainstResetAndReprogram(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points: []string{"keyslot: leaving", "keyslot: emptying", "keyslot: losing", "keyslot: programming"},
		World: func(w *interleave.World) {
			r := newRaceWorld(w, 1)
			ks := newKeys(w, 2)
			use(w, r.m, ks[0])
			w.Go("evict", func() { mustEvict(w, ks[0]); r.wantGone(ks[0]) })
			w.Go("reset", func() {
				if err := r.m.Reset(r.e.Lose); err != nil {
					w.Error(err)
				}
			})
			w.Go("other", func() { r.hold(ks[1]) })
			w.Check(func() { r.wantGone(ks[0]); r.wantOneSlotEach(ks[1]) })
		},
	})
}

// R13: an eviction fails, and a key with the same bytes, or another, comes to the slot.
// It is another key (numbers are never used again), nobody is served with what the slot
// was left with, and the retry of the eviction does not hit the new key
// (invariants 24, 25; dm-fscrypt.md invariant 53).
func TestRace13NewKeyAfterAFailedEviction(t *testing.T) {
	for name, c := range map[string]struct {
		bytes    string
		faults   int
		outcomes []string
	}{
		"equal bytes, the engine recovers at once": {"old", 1, []string{"served"}},
		"equal bytes": {"old", 2, []string{"served", "failed"}},
		"other bytes": {"new", 2, []string{"served", "failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"keyslot: emptying", "keyslot: programming", "keyslot: retrying", "keyslot: waiting"},
				Outcomes: c.outcomes,
				World: func(w *interleave.World) {
					r := newRaceWorld(w, 1)
					old := newKey(w, "old")
					use(w, r.m, old)
					faults := c.faults
					r.e.Fault = func(c enginetest.Call) error {
						if c.Op == enginetest.Evict && faults > 0 {
							faults--
							return errFault
						}
						return nil
					}
					if _, err := old.Evict(w.Ctx); !errors.Is(err, errFault) {
						w.Fatalf("evict: %v, want the fault (invariant 24)", err)
					}
					next := newKey(w, c.bytes)
					if next.ID() == old.ID() {
						w.Fatal("two keys have one number")
					}
					served := false
					w.Go("time", func() {
						for range c.faults {
							w.Sleep(10 * time.Second)
						}
					})
					w.Go("get", func() {
						s, err := r.m.Get(w.Ctx, next.Key, false)
						if err != nil {
							if !errors.Is(err, errFault) {
								w.Errorf("get: %v", err)
							}
							w.Outcome("failed")
							return
						}
						w.At("holding")
						if err := holds(s, next); err != nil {
							w.Error(err)
						}
						if len(resident(r.m, old)) != 0 {
							w.Error("the slot serves the new key and is in quarantine for the old one")
						}
						s.Put()
						served = true
						w.Outcome("served")
					})
					w.Check(func() {
						if in := r.e.Where(next.bytes); served && len(in) != 1 {
							w.Errorf("the new key is in slots %v, want the one where it was: the retry emptied it", in)
						}
						mustEvict(w, old)
						r.wantOneSlotEach(next)
						use(w, r.m, next)
						mustEvict(w, next)
						r.wantGone(old)
						r.wantGone(next)
					})
				},
			})
		})
	}
}

// R14: an engine here has no suspension; it has resets, in which it loses its keys, and
// puts them back itself. While it is down nobody programs it but the reset, and nobody
// meets it without his key (invariants 19, 20).
func TestRace14ResetAgainstProgram(t *testing.T) {
	for name, c := range map[string]struct {
		points []string
		keys   []int // that are needed during the reset
	}{
		"one more key":     {[]string{"keyslot: missed", "keyslot: waiting", "keyslot: granted", "keyslot: programming", "keyslot: programmed", "keyslot: resetting", "keyslot: lost"}, []int{1}},
		"two more":         {[]string{"keyslot: granted", "keyslot: programming", "keyslot: lost"}, []int{1, 2}},
		"one in its place": {[]string{"keyslot: referenced", "keyslot: granted", "keyslot: lost"}, []int{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, World: func(w *interleave.World) {
				r := newRaceWorld(w, 2)
				ks := newKeys(w, 3)
				use(w, r.m, ks[0])
				lost := 0 // keys that are not yet back
				r.e.Before = func(c enginetest.Call) {
					switch {
					case lost == 0:
					case c.Op == enginetest.Program:
						lost--
					default:
						w.Errorf("%v of slot %d while the engine is down (invariant 19)", c.Op, c.Slot)
					}
				}
				w.Go("reset", func() {
					before := r.e.Calls(enginetest.Program)
					were := 0
					err := r.m.Reset(func() {
						before = r.e.Calls(enginetest.Program)
						were = r.e.Occupied()
						lost = were
						r.e.Lose()
					})
					if n := r.e.Calls(enginetest.Program) - before; err != nil || n != were {
						w.Errorf("reset: %v, %d programs for %d keys (invariants 19 and 20)", err, n, were)
					}
				})
				for _, k := range c.keys {
					w.Go(fmt.Sprint("get ", k), func() { r.hold(ks[k]) })
				}
				w.Check(func() { r.wantOneSlotEach(ks...) })
			}})
		})
	}
}

// R18 for the engine of a device that goes away: requests that have a slot keep it, those
// that come are told, and when the end has come the engine is empty and stays so, with
// an eviction of the key under way or not (invariants 15, 21).
func TestRace18CloseAgainstGetAndEvict(t *testing.T) {
	for name, points := range map[string][]string{
		"a hit":     {"keyslot: found", "keyslot: referenced", "keyslot: closed", "keyslot: emptying", "keyslot: leaving"},
		"a program": {"keyslot: told", "keyslot: granted", "keyslot: closed", "keyslot: emptying", "blkcrypto: dead"},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: points, Outcomes: []string{"served", "closed", "refused"}, World: func(w *interleave.World) {
				r := newRaceWorld(w, 2)
				ks := newKeys(w, 2)
				use(w, r.m, ks[1])
				if name == "a hit" {
					use(w, r.m, ks[0])
				}
				w.Go("get", func() {
					s, err := r.m.Get(w.Ctx, ks[0].Key, false)
					switch {
					case err == nil:
						w.At("holding")
						if err := holds(s, ks[0]); err != nil {
							w.Error(err)
						}
						s.Put()
						w.Outcome("served")
					case errors.Is(err, block.ErrClosed):
						w.Outcome("closed")
					default:
						wantEvicted(w, err, true)
					}
				})
				w.Go("close", func() {
					if err := r.m.Close(w.Ctx); err != nil {
						w.Errorf("close: %v", err)
					}
					if n := r.e.Occupied(); n != 0 {
						w.Errorf("closed, and %d slots of the engine hold a key (invariant 21)", n)
					}
				})
				w.Go("evict", func() { mustEvict(w, ks[0]); r.wantGone(ks[0]) })
				w.Check(func() {
					if st := r.m.Stats(); st.Resident != 0 || st.Busy != 0 || r.e.Occupied() != 0 {
						w.Errorf("in the end %d slots hold a key, %d are in use, %d of the engine hold one; want none", st.Resident, st.Busy, r.e.Occupied())
					}
					if _, err := r.m.Get(w.Ctx, ks[1].Key, false); !errors.Is(err, block.ErrClosed) {
						w.Errorf("get of a closed manager: %v", err)
					}
				})
			}})
		})
	}
}
