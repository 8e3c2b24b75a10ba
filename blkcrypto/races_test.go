//go:build invariants || race

package blkcrypto

import (
	"errors"
	"fmt"
	"testing"

	"keyway/internal/interleave"
)

// The part of blkcrypto.md section 16 that a key alone can show: R6, requests against
// the evictions of their key, in every interleaving of the points that are named
// (package interleave). What keyslots add to it is in package keyslot.

// A keyRace is a key, and the requests that are inside it.
type keyRace struct {
	*interleave.World
	k      *Key
	wiped  func() bool
	inside int
}

func newKeyRace(w *interleave.World) *keyRace {
	k, b := testKey(w.T)
	return &keyRace{w, k, b.Wiped, 0}
}

// request enters the key, stays, and leaves. It reports whether it was let in.
func (r *keyRace) request(lane uint16) bool {
	if err := r.k.Enter(lane); err != nil {
		if !errors.Is(err, ErrKeyEvicted) {
			r.Errorf("enter: %v", err)
		}
		r.Outcome("refused")
		return false
	}
	r.inside++
	r.At("inside")
	if r.wiped() && !r.k.Dead() {
		r.Error("the key is wiped and a request is told that it lives")
	}
	r.inside--
	r.k.Leave(lane)
	r.Outcome("served")
	return true
}

// R6 (invariant 22): an eviction waits for the requests that were let in, on whatever
// lane, and lets in no others.
func TestRace06RequestsAgainstEvict(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"blkcrypto: entering", "blkcrypto: left", "blkcrypto: closed"},
		Outcomes: []string{"served", "refused"},
		World: func(w *interleave.World) {
			r := newKeyRace(w)
			for i := range uint16(2) {
				w.Go(fmt.Sprint("request ", i), func() { r.request(i) })
			}
			w.Go("evict", func() {
				if _, err := r.k.Evict(w.Ctx); err != nil {
					w.Error(err)
				}
				if r.inside != 0 || !r.wiped() {
					w.Errorf("evicted with %d requests inside, wiped %v (invariants 22 and 26)", r.inside, r.wiped())
				}
			})
			w.Check(func() {
				if n := r.k.InUse(); n != 0 {
					w.Errorf("%d requests are counted in the end, want 0 (invariant 15)", n)
				}
			})
		},
	})
}

// R6 for an eviction that does not wait: it says busy and nobody noticed, or the key is
// gone; nothing between (invariant 22).
func TestRace06RequestsAgainstEvictIdle(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"blkcrypto: entering", "blkcrypto: left", "blkcrypto: retired", "blkcrypto: dead"},
		Outcomes: []string{"served", "refused", "busy", "evicted"},
		World: func(w *interleave.World) {
			r := newKeyRace(w)
			served := 0
			for i := range uint16(2) {
				w.Go(fmt.Sprint("request ", i), func() {
					if r.request(i) {
						served++
					}
				})
			}
			var err error
			w.Go("evict", func() {
				switch _, err = r.k.EvictIdle(w.Ctx); {
				case err == nil:
					w.Outcome("evicted")
					if r.inside != 0 || !r.wiped() {
						w.Errorf("evicted with %d requests inside, wiped %v", r.inside, r.wiped())
					}
				case errors.Is(err, ErrKeyBusy):
					w.Outcome("busy")
				default:
					w.Error(err)
				}
			})
			w.Check(func() {
				if err != nil && (served != 2 || r.k.Evicted()) {
					w.Errorf("the eviction was refused, %d of 2 requests were served, evicted %v", served, r.k.Evicted())
				}
			})
		},
	})
}

// R6 for a key that is revoked while an eviction of it waits for a request: the request
// goes on and finds the key dead, both evictions end, and the bytes are wiped once
// (invariants 22, 25, 26).
func TestRace06RevokeAgainstEvictAndRequest(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points: []string{"blkcrypto: entering", "blkcrypto: left", "blkcrypto: closed", "blkcrypto: dead", "blkcrypto: asked"},
		World: func(w *interleave.World) {
			r := newKeyRace(w)
			w.Go("request", func() { r.request(0) })
			for _, evict := range []struct {
				name string
				do   func() (Eviction, error)
			}{
				{"evict", func() (Eviction, error) { return r.k.Evict(w.Ctx) }},
				{"revoke", func() (Eviction, error) { return r.k.Revoke(w.Ctx) }},
			} {
				w.Go(evict.name, func() {
					if _, err := evict.do(); err != nil {
						w.Errorf("%s: %v", evict.name, err)
					}
					if !r.wiped() || !r.k.Dead() {
						w.Errorf("%s ended: wiped %v, dead %v", evict.name, r.wiped(), r.k.Dead())
					}
				})
			}
		},
	})
}
