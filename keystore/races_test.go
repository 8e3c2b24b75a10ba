//go:build invariants || race

package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"keyway/blkcrypto"
	"keyway/internal/interleave"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// Races of dm-fscrypt.md, section 15, where they live in the key store: 11 and 32, and
// 25 for a key that goes with its last table.

// A raceStore is a store and an engine that may be broken.
type raceStore struct {
	Store
	w      *interleave.World
	engine *balky
	m      *keyslot.Manager
}

type balky struct {
	*soft.Engine
	broken atomic.Bool
}

var errBalks = errors.New("the engine does not answer")

func (e *balky) Evict(slot int) error {
	if e.broken.Load() {
		return errBalks
	}
	return e.Engine.Evict(slot)
}

func newRaceStore(w *interleave.World) *raceStore {
	s := &raceStore{w: w, engine: &balky{Engine: soft.New("engine of the test", 2)}}
	s.m = keyslot.New(s.engine)
	w.Cleanup(func() {
		s.engine.broken.Store(false)
		_ = s.m.Close(context.Background())
		_ = s.Close(context.Background())
	})
	return s
}

// bytes is a key that does not outlive its interleaving.
func (s *raceStore) bytes(seed byte) *secret.Buffer {
	b := make([]byte, 64)
	for i := range b {
		b[i] = byte(i) + seed
	}
	locked, err := secret.Copy(b)
	if err != nil {
		s.w.Fatal(err)
	}
	return locked
}

// put adds a key; the error may be one of those that the race allows.
func (s *raceStore) put(d Desc, allowed ...error) bool {
	d.Config, d.Source = config(4096), "test"
	err := s.Add(d, s.bytes(1))
	if err != nil && !slices.ContainsFunc(allowed, func(a error) bool { return errors.Is(err, a) }) {
		s.w.Errorf("add: %v", err)
	}
	return err == nil
}

// program makes one request's use of k.
func (s *raceStore) program(k *blkcrypto.Key) error {
	if err := k.Enter(0); err != nil {
		return err
	}
	defer k.Leave(0)
	slot, err := s.m.Get(s.w.Ctx, k, false)
	if err == nil {
		slot.Put()
	}
	return err
}

// user is a table: it takes the key, has one request, and gives it back. It reports
// whether it got the key.
func (s *raceStore) user(name string, evictable bool) bool {
	k, release, err := s.Use(name, 64, config(4096), false)
	if err != nil {
		if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrEvicting) && !errors.Is(err, ErrMissing) {
			s.w.Errorf("use: %v", err)
		}
		return false
	}
	s.w.At("has it")
	if err := s.program(k); err != nil && !(evictable && errors.Is(err, blkcrypto.ErrKeyEvicted)) {
		s.w.Errorf("a table has the key, and nobody has evicted it: %v", err)
	}
	if err := release(s.w.Ctx); err != nil {
		s.w.Errorf("release: %v", err)
	}
	return true
}

// wantEmpty checks that no key is in the engine.
func (s *raceStore) wantEmpty() {
	if n := s.m.Stats().Resident; n != 0 {
		s.w.Errorf("%d keys are left in the engine", n)
	}
}

// Race 25 in the store: the last table that uses a key gives it back while another
// takes it. A key of its own right is derived anew; one that goes with its last table
// is refused to who comes too late. Who got it has it: nobody evicts it under him
// (invariants 29, 51 and 56).
func TestDMRace25LastReleaseAgainstUse(t *testing.T) {
	for _, auto := range []bool{false, true} {
		outcomes := []string{"used"}
		points := []string{"keystore: given back", "blkcrypto: dead"}
		if auto {
			outcomes = []string{"used", "too late"}
			points = []string{"keystore: forgetting", "keystore: withdrawn", "keystore: evicted", "blkcrypto: dead"}
		}
		t.Run(fmt.Sprint("goes with its last table: ", auto), func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: points, Outcomes: outcomes, World: func(w *interleave.World) {
				s := newRaceStore(w)
				s.put(Desc{Name: "k", Auto: auto})
				k, release, err := s.Use("k", 64, config(4096), false)
				if err != nil {
					w.Fatal(err)
				}
				if err := s.program(k); err != nil {
					w.Fatal(err)
				}
				w.Go("release", func() {
					if err := release(w.Ctx); err != nil {
						w.Errorf("release: %v", err)
					}
					if st, listed := s.Get("k"); auto && listed && st.Users == 0 && !st.Pending {
						w.Error("nobody has the key, and it is still listed")
					}
				})
				w.Go("use", func() {
					if s.user("k", false) {
						w.Outcome("used")
					} else {
						w.Outcome("too late")
					}
				})
				w.Check(func() {
					s.wantEmpty()
					if _, listed := s.Get("k"); listed == auto {
						w.Errorf("listed in the end: %v", listed)
					}
				})
			}})
		})
	}
}

// Race 11 in the store: a key is evicted by name, by two at once, while a table takes it
// and a key of the name is added again. The receipts together tell where it was, the new
// key is another one and has none of its fate, and a table has the one or the other
// (invariants 51, 55 and 56).
func TestDMRace11EvictAgainstAddOfTheName(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keystore: evicted"},
		Outcomes: []string{"used", "not used", "added", "exists", "was gone"},
		World: func(w *interleave.World) {
			s := newRaceStore(w)
			s.put(Desc{Name: "k"})
			added := false
			evictions := 0
			evict := func() {
				receipt, err := s.Evict(w.Ctx, "k", EvictOptions{})
				switch {
				case errors.Is(err, ErrNotFound):
					w.Outcome("was gone")
				case err != nil || receipt.Err() != nil:
					w.Errorf("evict: %v, %v", err, receipt.Err())
				default:
					evictions++
				}
			}
			w.Go("evict", evict)
			w.Go("evict too", evict)
			w.Go("use", func() {
				if s.user("k", true) {
					w.Outcome("used")
				} else {
					w.Outcome("not used")
				}
			})
			w.Go("add", func() {
				if added = s.put(Desc{Name: "k"}, ErrExists, ErrEvicting); added {
					w.Outcome("added")
				} else {
					w.Outcome("exists")
				}
			})
			w.Check(func() {
				s.wantEmpty()
				if st, listed := s.Get("k"); listed && (!added || st.Pending || st.Missing != "" || st.Users != 0) {
					w.Errorf("in the end: %+v; added: %v", st, added)
				}
				if evictions == 0 {
					w.Error("nobody evicted the key, and somebody was told that it is gone")
				}
			})
		},
	})
}

// Race 32: the end of the process while an engine does not give up a key, is repaired,
// and somebody evicts the key at the same time. The end says nil only if the key is
// nowhere, and otherwise names it; the bytes in memory are gone in any case, and nobody
// gets the key any more. What is left after that is in the engine alone: it is what a
// crash leaves too (invariants 51 and 53).
func TestDMRace32CloseWithAnEvictionPending(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keystore: withdrawn", "blkcrypto: dead", "keyslot: leaving", "keystore: evicted"},
		Outcomes: []string{"closed", "refused", "evicted", "pending", "was gone"},
		World: func(w *interleave.World) {
			s := newRaceStore(w)
			s.put(Desc{Name: "k"})
			k, release, err := s.Use("k", 64, config(4096), false)
			if err != nil {
				w.Fatal(err)
			}
			w.Cleanup(func() { _ = release(context.Background()) })
			if err := s.program(k); err != nil {
				w.Fatal(err)
			}
			locked := s.entries["k"].bytes
			s.engine.broken.Store(true)
			inSlot := func() bool { return s.m.Stats().Resident+s.m.Stats().Quarantined != 0 }
			w.Go("close", func() {
				switch err := s.Close(w.Ctx); {
				case err == nil:
					w.Outcome("closed")
					if inSlot() {
						w.Error("closed, and a slot has the key (invariant 51)")
					}
				case errors.Is(err, errBalks):
					w.Outcome("refused")
				default:
					w.Errorf("close: %v", err)
				}
				if !locked.Wiped() {
					w.Error("closed, and the bytes are in memory")
				}
				if _, _, err := s.Use("k", 64, config(4096), false); err == nil {
					w.Error("the key is given out after the end")
				}
			})
			w.Go("evict", func() {
				switch _, err := s.Evict(w.Ctx, "k", EvictOptions{}); {
				case err == nil:
					w.Outcome("evicted")
					if inSlot() {
						w.Error("evicted, and a slot has the key (invariant 51)")
					}
				case errors.Is(err, ErrNotFound):
					w.Outcome("was gone")
				case errors.Is(err, errBalks):
					w.Outcome("pending")
				default:
					w.Errorf("evict: %v", err)
				}
			})
			w.Go("repair", func() { s.engine.broken.Store(false) })
			w.Check(func() {
				// The retry of the engine's manager, or its end, finishes it.
				if err := s.m.Close(w.Ctx); err != nil || inSlot() {
					w.Errorf("the engine is repaired and closed, and a slot has the key: %v", err)
				}
			})
		},
	})
}
