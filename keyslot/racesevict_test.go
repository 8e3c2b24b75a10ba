//go:build invariants || race

package keyslot_test

import (
	"errors"
	"fmt"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

func mustEvict(w *interleave.World, k testKey) {
	if _, err := k.Evict(w.Ctx); err != nil {
		w.Errorf("evict %v: %v", k, err)
	}
}

// wantEvicted checks the error of a request that an eviction may refuse, and counts it.
func wantEvicted(w *interleave.World, err error, may bool) {
	if !may || !errors.Is(err, blkcrypto.ErrKeyEvicted) {
		w.Errorf("request: %v", err)
	}
	w.Outcome("refused")
}

// lending is a disk in memory that lends its bytes.
type lending struct{ *ram }

func (d lending) Lend(_ uint16, off, n int64, _ bool) ([]byte, error) { return d.mem[off:][:n], nil }
func (lending) Return(uint16, int64, int64, bool)                     {}

// R4: the callback of the last request evicts the key at once and frees it: the slot's
// reference went before, so the eviction need not wait, and a reset that comes then does
// not put the key back (invariants 14, 20, 21).
func TestRace04CompleteEvictFree(t *testing.T) {
	for name, c := range map[string]struct {
		points       []string
		reset, lends bool
	}{
		"against another request": {[]string{"keyslot: transforming", "keyslot: released", "keyslot: encrypted", "blkcrypto: left"}, false, false},
		"against a reset":         {[]string{"keyslot: transforming", "keyslot: released", "keyslot: resetting", "keyslot: lost", "keyslot: emptying"}, true, false},
		"in the medium itself":    {[]string{"keyslot: transforming", "keyslot: putting", "keyslot: released", "keyslot: resetting", "keyslot: emptying", "blkcrypto: left"}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, World: func(w *interleave.World) {
				r := newRaceWorld(w, 2)
				var medium block.Device = newRAM(w, 4096)
				if c.lends {
					medium = lending{newRAM(w, 4096)}
				}
				o := keyslot.Over(medium, r.m)
				ks := newKeys(w, 2)
				use(w, r.m, ks[0])
				write := func(k testKey) {
					q := block.Request{Op: block.OpWrite, Len: 512, Data: block.Bytes(make([]byte, 512)), Crypt: blkcrypto.Context{Key: k.Key}}
					if err := o.Do(w.Ctx, q); err != nil {
						w.Errorf("write with %v: %v", k, err)
					}
				}
				w.Go("complete and evict", func() {
					write(ks[0])
					for _, res := range r.m.Residents() {
						if res.ID == ks[0].ID() && res.Requests != 0 {
							w.Errorf("the request is complete and its slot has %d references (invariant 14)", res.Requests)
						}
					}
					if _, err := ks[0].EvictIdle(w.Ctx); err != nil {
						w.Errorf("evict in the callback: %v, want success (invariant 14)", err)
					}
					r.wantGone(ks[0])
				})
				if c.reset {
					w.Go("reset", func() {
						if err := r.m.Reset(r.e.Lose); err != nil {
							w.Error(err)
						}
					})
				} else {
					w.Go("other", func() { write(ks[1]) })
				}
				w.Check(func() {
					r.wantGone(ks[0])
					r.wantOneSlotEach(ks[1])
				})
			}})
		})
	}
}

// R6: an eviction races a request with the key. The request is served before the
// eviction ends, or refused; nothing between (invariants 21, 22, 25).
func TestRace06EvictAgainstGet(t *testing.T) {
	for name, c := range map[string]struct {
		resident bool
		points   []string
	}{
		"a hit":     {true, []string{"keyslot: found", "keyslot: referenced", "keyslot: putting", "keyslot: released", "blkcrypto: dead", "keyslot: evicting", "keyslot: leaving", "keyslot: emptying", "keyslot: emptied"}},
		"a program": {false, []string{"keyslot: missed", "keyslot: waiting", "keyslot: programming", "keyslot: programmed", "blkcrypto: held", "blkcrypto: dead", "blkcrypto: asked"}},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, Outcomes: []string{"served", "refused"}, World: func(w *interleave.World) {
				r := newRaceWorld(w, 2)
				k := newKey(w, "k")
				if c.resident {
					use(w, r.m, k)
				}
				evicted := false
				w.Go("get", func() {
					dead := k.Dead()
					s, err := r.m.Get(w.Ctx, k.Key, false)
					if err != nil {
						wantEvicted(w, err, true)
						return
					}
					if dead {
						w.Error("a request that came after the beginning of the eviction has a slot (invariant 25)")
					}
					w.At("holding")
					if evicted {
						w.Error("the eviction ended while a request has the slot (invariant 22)")
					}
					if err := holds(s, k); err != nil {
						w.Error(err)
					}
					s.Put()
					w.Outcome("served")
				})
				w.Go("evict", func() {
					mustEvict(w, k)
					evicted = true
					r.wantGone(k)
				})
				w.Check(func() {
					r.wantGone(k)
					if again, err := k.Evict(w.Ctx); err != nil || len(again.Places) != 0 {
						w.Errorf("another eviction of a key that is gone: %v, places %v, want none (invariant 25)", err, again.Places)
					}
				})
			}})
		})
	}
}

// R6 for an eviction from one manager, after which the key is as good as new: a request
// is served, by the slot as it was or by a fresh one, and never refused.
func TestRace06EvictFromOneManagerAgainstGet(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keyslot: found", "keyslot: referenced", "keyslot: waiting", "keyslot: granted", "keyslot: leaving", "keyslot: emptying", "keyslot: left"},
		Outcomes: []string{"busy", "fresh"},
		World: func(w *interleave.World) {
			r := newRaceWorld(w, 1)
			k := newKey(w, "k")
			use(w, r.m, k)
			w.Go("get", func() {
				r.hold(k)
				if r.e.Calls(enginetest.Program) == 1 {
					w.Outcome("busy")
				} else {
					w.Outcome("fresh")
				}
			})
			w.Go("evict", func() {
				if err := r.m.Evict(w.Ctx, k.Key); err != nil {
					w.Error(err)
				}
				// Whoever waits for the end of the eviction has not begun.
				if in := r.e.Where(k.bytes); in != nil {
					w.Errorf("the eviction has ended and the key is in slots %v (invariant 21)", in)
				}
			})
			w.Check(func() { r.wantOneSlotEach(k) })
		},
	})
}

// bringing is an engine without slots, whose requests bring their keys: the cipher of the
// test engine.
type bringing struct{ *enginetest.Engine }

func (bringing) Slots() int { return 0 }

func (bringing) CryptKey(_ blkcrypto.Config, key []byte, _ keyslot.Direction, _ blkcrypto.DUN, dst, src block.Segments) error {
	b := make([]byte, src.Len())
	src.CopyTo(b)
	for i := range b {
		b[i] ^= key[i%len(key)]
	}
	dst.CopyFrom(b)
	return nil
}

// R6 with an engine whose requests bring their keys: an eviction waits for those under
// way, which have their key to the end (invariants 21, 22, 25).
func TestRace06EvictAgainstGetWithoutSlots(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keyslot: missed", "keyslot: told", "blkcrypto: dead", "blkcrypto: asking holder"},
		Outcomes: []string{"served", "refused"},
		World: func(w *interleave.World) {
			m := keyslot.New(bringing{enginetest.New(w, 1)})
			k := newKey(w, "k")
			inside := 0
			for i := range 2 {
				w.Go(fmt.Sprint("request ", i), func() {
					s, err := m.Get(w.Ctx, k.Key, false)
					if err != nil {
						wantEvicted(w, err, true)
						return
					}
					inside++
					w.At("holding")
					if err := holds(s, k); err != nil {
						w.Errorf("a request under way: %v", err)
					}
					inside--
					s.Put()
					w.Outcome("served")
				})
			}
			w.Go("evict", func() {
				mustEvict(w, k)
				if inside != 0 {
					w.Errorf("evicted while %d requests have the key (invariant 22)", inside)
				}
			})
			w.Check(func() {
				if st := m.Stats(); st.Busy != 0 || m.Residents() != nil {
					w.Errorf("%d busy, residents %v, want none (invariant 21)", st.Busy, m.Residents())
				}
			})
		},
	})
}
