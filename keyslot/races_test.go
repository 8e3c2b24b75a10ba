//go:build invariants || race

package keyslot_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

// The races R1 to R23 of blkcrypto.md, section 16, each in every interleaving of the
// points that it names (package interleave). Here are those that a keyslot manager and
// one engine can show: 1 to 6, 11 to 15, 19 to 21; the others need a mapped device and
// are in package dm.

// A raceWorld is a manager of an engine that is watched.
type raceWorld struct {
	*interleave.World
	m *keyslot.Manager
	e *enginetest.Engine
}

func newRaceWorld(w *interleave.World, slots int) *raceWorld {
	m, e := newManager(w, slots)
	r := &raceWorld{w, m, e}
	w.Check(func() { wantQuiet(w, m, e) })
	return r
}

// hold gets a slot for k, stands there with it, and puts it back: nobody may have
// reprogrammed it meanwhile (invariant 13).
func (w *raceWorld) hold(k testKey) {
	s := get(w, w.m, k)
	w.At("holding")
	if err := holds(s, k); err != nil {
		w.Error(err)
	}
	s.Put()
}

// wantOneSlotEach checks invariant 13 by the engine's registers.
func (w *raceWorld) wantOneSlotEach(ks ...testKey) {
	for _, k := range ks {
		if in := w.e.Where(k.bytes); len(in) > 1 {
			w.Errorf("%v is in slots %v, want at most one (invariant 13)", k, in)
		}
		if in, believed := w.e.Where(k.bytes), resident(w.m, k); !slices.Equal(in, believed) {
			w.Errorf("%v is in slots %v and the table says %v", k, in, believed)
		}
	}
}

// wantGone checks that nothing of k is left in engine and table (invariant 21).
func (w *raceWorld) wantGone(k testKey) {
	if in := w.e.Where(k.bytes); in != nil {
		w.Errorf("%v has been evicted and is in slots %v of the engine (invariant 21)", k, in)
	}
	if in := resident(w.m, k); in != nil {
		w.Errorf("%v has been evicted and the table has it in slots %v (invariant 21)", k, in)
	}
}

// lru watches the choice of victims against a list kept the plain way (invariant 16).
type lru struct {
	w        *raceWorld
	released []int // slots, the last one released at the end
	users    map[int]int
}

func watchLRU(w *raceWorld) *lru {
	l := &lru{w: w, users: map[int]int{}}
	w.e.Before = func(c enginetest.Call) {
		if c.Op == enginetest.Program {
			l.wantVictim(c.Slot)
		}
	}
	return l
}

func (l *lru) wantVictim(slot int) {
	if l.users[slot] > 0 {
		l.w.Errorf("slot %d is reprogrammed and %d use it (invariant 13)", slot, l.users[slot])
	}
	if !slices.Contains(l.released, slot) {
		return // never used: before all others
	}
	for _, s := range l.released {
		if l.users[s] == 0 {
			if s != slot {
				l.w.Errorf("slot %d is the victim; slot %d was released before it: %v (invariant 16)", slot, s, l.released)
			}
			return
		}
	}
}

// hold is raceWorld.hold with the list kept and the references counted.
func (l *lru) hold(k testKey) {
	s := get(l.w, l.w.m, k)
	slot := l.w.e.Where(k.bytes)[0]
	l.users[slot]++
	l.w.At("holding")
	want, got := 0, int64(0)
	for _, n := range l.users {
		want += n
	}
	for _, r := range l.w.m.Residents() {
		got += r.Requests
	}
	if got < int64(want) {
		l.w.Errorf("the slots have %d references, %d are held (invariant 15)", got, want)
	}
	if err := holds(s, k); err != nil {
		l.w.Error(err)
	}
	l.users[slot]--
	l.released = append(slices.DeleteFunc(l.released, func(s int) bool { return s == slot }), slot)
	s.Put()
}

// R1: get from several threads with more keys than slots. Invariants 13, 15, 16, and 17:
// the end of every interleaving is that all were served.
func TestRace01GetFromManyThreads(t *testing.T) {
	for _, c := range []struct {
		slots  int
		points []string
		gets   [][]int // which key, by thread
	}{
		{1, []string{"keyslot: missed", "keyslot: granted", "keyslot: programming"}, [][]int{{0, 1}, {1, 0}}},
		{1, []string{"keyslot: granted"}, [][]int{{0}, {1}, {0}}},
		{2, []string{"keyslot: granted"}, [][]int{{0, 1}, {2, 0}}},
		{2, []string{"keyslot: granted"}, [][]int{{0}, {1}, {2}}},
		{3, []string{"keyslot: granted"}, [][]int{{0, 3}, {1, 2, 0}}},
	} {
		t.Run(fmt.Sprintf("%d slots, %v", c.slots, c.gets), func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, World: func(w *interleave.World) {
				r := newRaceWorld(w, c.slots)
				l := watchLRU(r)
				ks := newKeys(w, c.slots+1)
				for i, gets := range c.gets {
					w.Go(fmt.Sprint("thread ", i), func() {
						for _, k := range gets {
							l.hold(ks[k])
						}
					})
				}
				w.Check(func() { r.wantOneSlotEach(ks...) })
			}})
		})
	}
}

// R2: threads that need the same new key look again before they program it: one does,
// and all get its slot (invariant 13).
func TestRace02ManyProgramTheSameNewKey(t *testing.T) {
	for _, c := range []struct {
		threads int
		points  []string
	}{
		{2, []string{"keyslot: missed", "keyslot: waiting", "keyslot: programming", "keyslot: programmed", "keyslot: granted"}},
		{3, []string{"keyslot: missed", "keyslot: programming"}},
	} {
		t.Run(fmt.Sprint(c.threads, " threads"), func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, World: func(w *interleave.World) {
				r := newRaceWorld(w, 2)
				k := newKey(w, "k")
				for i := range c.threads {
					w.Go(fmt.Sprint("thread ", i), func() { use(w, r.m, k) })
				}
				w.Check(func() {
					if n := r.e.Calls(enginetest.Program); n != 1 {
						w.Errorf("programmed %d times, want once", n)
					}
					r.wantOneSlotEach(k)
				})
			}})
		})
	}
}

// R3: the last reference goes while another request for the key comes, or one for
// another key that waits for the slot: it is not lost to either (invariants 13, 17).
func TestRace03PutAgainstGetOnTheLastReference(t *testing.T) {
	for name, points := range map[string][]string{
		"the waiter comes":  {"keyslot: released", "keyslot: waiting"},
		"the hit comes":     {"keyslot: found", "keyslot: referenced", "keyslot: putting", "keyslot: released"},
		"the slot is taken": {"keyslot: found", "keyslot: referenced", "keyslot: programming"},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: points, World: func(w *interleave.World) {
				r := newRaceWorld(w, 1)
				ks := newKeys(w, 2)
				s := get(w, r.m, ks[0])
				w.Go("put", s.Put)
				w.Go("same", func() { use(w, r.m, ks[0]) })
				w.Go("other", func() { use(w, r.m, ks[1]) })
				w.Check(func() { r.wantOneSlotEach(ks...) })
			}})
		})
	}
}

// R3 with a waiter that gives up: the slot that is released at that moment is his, or the
// next one's, and not lost (invariant 17).
func TestRace03PutAgainstAWaiterThatGivesUp(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keyslot: putting", "keyslot: released", "keyslot: gave up"},
		Outcomes: []string{"gave up", "served"},
		World: func(w *interleave.World) {
			r := newRaceWorld(w, 1)
			ks := newKeys(w, 3)
			s := get(w, r.m, ks[0])
			w.Go("put", s.Put)
			w.Go("next", func() { use(w, r.m, ks[2]) })
			w.Go("waiter", func() {
				short, cancel := context.WithCancel(w.Ctx)
				w.Go("cancel", cancel) // not before the waiter waits
				switch s, err := r.m.Get(short, ks[1].Key, false); {
				case err == nil:
					if err := holds(s, ks[1]); err != nil {
						w.Error(err)
					}
					s.Put()
					w.Outcome("served")
				case errors.Is(err, context.Canceled):
					w.Outcome("gave up")
				default:
					w.Errorf("waiter: %v", err)
				}
			})
			w.Check(func() { r.wantOneSlotEach(ks...) })
		},
	})
}

// R12: Linux prepares its fallback at its first use; ours is there from the start, and
// what is made at the first use of a key is one slot. So: many come with their first
// request, the first program fails half way, and the next attempt works; or the key is
// evicted after the failure (invariants 18, 21, 23).
func TestRace12FirstUseByManyFailsHalfWay(t *testing.T) {
	for name, evicts := range map[string]bool{"retried": false, "evicted": true} {
		t.Run(name, func(t *testing.T) {
			outcomes := []string{"served", "failed"}
			if evicts {
				outcomes = append(outcomes, "refused")
			}
			interleave.Run(t, interleave.Race{
				Points:   []string{"keyslot: missed", "keyslot: programming", "keyslot: emptying"},
				Outcomes: outcomes,
				World: func(w *interleave.World) {
					r := newRaceWorld(w, 1)
					k := newKey(w, "k")
					// The second call leaves the key in the slot although it fails.
					r.e.Fault = fault(enginetest.Program, func(c enginetest.Call) bool { return c.Nth == 0 })
					failed := 0
					for i := range 2 {
						w.Go(fmt.Sprint("request ", i), func() {
							switch s, err := r.m.Get(w.Ctx, k.Key, false); {
							case err == nil:
								if err := holds(s, k); err != nil {
									w.Error(err)
								}
								s.Put()
								w.Outcome("served")
							case errors.Is(err, errFault):
								failed++
								w.Outcome("failed")
							default:
								wantEvicted(w, err, evicts)
							}
						})
					}
					if evicts {
						w.Go("evict", func() { mustEvict(w, k) })
						w.Check(func() { r.wantGone(k) })
					}
					w.Check(func() {
						if failed > 1 || failed == 0 && !evicts {
							w.Errorf("%d requests failed for one fault (invariant 18)", failed)
						}
						r.wantOneSlotEach(k)
					})
				},
			})
		})
	}
}

// R15: a program fails while others wait for the slot: only that request fails, and the
// others are woken (invariants 17, 18).
func TestRace15ProgramFailsWithWaitersQueued(t *testing.T) {
	for _, broken := range []bool{false, true} {
		t.Run(fmt.Sprint("the slot cannot be emptied: ", broken), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"keyslot: waiting", "keyslot: emptying"},
				Outcomes: []string{"served", "failed"},
				World: func(w *interleave.World) {
					r := newRaceWorld(w, 1)
					ks := newKeys(w, 2+1)
					emptied := 0
					r.e.Fault = func(c enginetest.Call) error {
						switch {
						case c.Op == enginetest.Program && c.Nth == 0:
							return errFault
						case c.Op == enginetest.Evict && broken && c.Nth == 0:
							return errFault
						case c.Op == enginetest.Evict:
							emptied++
						}
						return nil
					}
					failed := 0
					for i, k := range ks {
						w.Go(fmt.Sprint("request ", i), func() {
							s, err := r.m.Get(w.Ctx, k.Key, false)
							if err != nil {
								failed++
								w.Outcome("failed")
								if !errors.Is(err, errFault) {
									w.Errorf("request %d: %v, want the engine's error", i, err)
								}
								return
							}
							if err := holds(s, k); err != nil {
								w.Error(err)
							}
							s.Put()
							w.Outcome("served")
						})
					}
					w.Check(func() {
						if failed != 1 || emptied == 0 {
							w.Errorf("%d requests failed and the slot was emptied %d times, want 1 and at least once (invariant 18)", failed, emptied)
						}
						r.wantOneSlotEach(ks...)
					})
				},
			})
		})
	}
}
