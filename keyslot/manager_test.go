package keyslot_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

// blkcrypto.md invariant 13, race R2.
func TestKeyIsProgrammedOnceForAllWhoWantIt(t *testing.T) {
	for _, n := range slotNums {
		m, e := newManager(t, n)
		k := newKey(t, "k")
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				s, err := m.Get(ctx, k.Key, false)
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Put()
				if err := holds(s, k); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := e.Calls(enginetest.Program); got != 1 {
			t.Errorf("%d slots: programmed %d times, want 1", n, got)
		}
		if got := e.Where(k.bytes); len(got) != 1 {
			t.Errorf("%d slots: the key is in slots %v, want one", n, got)
		}
		wantQuiet(t, m, e)
	}
}

// blkcrypto.md invariants 13 and 16, against a list kept the plain way.
func TestVictimIsTheSlotReleasedLongestAgo(t *testing.T) {
	for _, n := range slotNums {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 16))
			m, e := newManager(t, n)
			keys := newKeys(t, n+3)
			var idle []int // slots by release, longest ago first
			where := map[int]int{}
			type held struct {
				s    keyslot.Slot
				slot int
			}
			var inUse []held
			uses := map[int]int{}
			empty := n
			for range 300 {
				if len(inUse) > 0 && (len(uses) == n || rng.IntN(2) == 0) {
					i := rng.IntN(len(inUse))
					h := inUse[i]
					inUse = slices.Delete(inUse, i, i+1)
					h.s.Put()
					if uses[h.slot]--; uses[h.slot] == 0 {
						delete(uses, h.slot)
						idle = append(idle, h.slot)
					}
					continue
				}
				k := rng.IntN(len(keys))
				slot, hit := where[k]
				before := e.Calls(enginetest.Program)
				s := get(t, m, keys[k])
				programs := e.Calls(enginetest.Program) - before
				got := e.Where(keys[k].bytes)
				switch {
				case hit && programs > 0:
					t.Fatalf("%d slots, seed %d: key %d was in slot %d and is programmed again", n, seed, k, slot)
				case !hit && empty > 0:
					empty--
					slot = got[0]
				case !hit:
					slot = idle[0]
					for old, at := range where {
						if at == slot {
							delete(where, old)
						}
					}
				}
				if !slices.Equal(got, []int{slot}) {
					t.Fatalf("%d slots, seed %d: key %d is in slots %v, want %d (idle, longest ago first: %v)", n, seed, k, got, slot, idle)
				}
				where[k] = slot
				idle = slices.DeleteFunc(idle, func(i int) bool { return i == slot })
				uses[slot]++
				inUse = append(inUse, held{s, slot})
			}
			for _, h := range inUse {
				h.s.Put()
			}
			wantQuiet(t, m, e)
		}
	}
}

// An empty slot has no victim: another key's eviction costs nobody his slot.
func TestEmptySlotIsTakenFirst(t *testing.T) {
	m, e := newManager(t, 3)
	keys := newKeys(t, 3)
	for _, k := range keys {
		use(t, m, k)
	}
	if err := m.Evict(ctx, keys[2].Key); err != nil { // the one released last
		t.Fatal(err)
	}
	fresh := newKey(t, "fresh")
	use(t, m, fresh)
	if at := e.Where(fresh.bytes); !slices.Equal(at, []int{2}) {
		t.Errorf("the new key is in slots %v, want the empty 2", at)
	}
	for _, k := range keys[:2] {
		if len(e.Where(k.bytes)) != 1 {
			t.Errorf("%v has lost its slot", k)
		}
	}
}

// The eviction of the key has begun and the manager has not heard of it yet.
func TestDeadKeyInASlotIsNotServed(t *testing.T) {
	m, _ := newManager(t, 1)
	k := newKey(t, "k")
	use(t, m, k)
	k.Key.Release(m)
	if _, err := k.Key.Evict(ctx); err != nil {
		t.Fatal(err)
	}
	for _, nowait := range []bool{false, true} {
		s, err := m.Get(ctx, k.Key, nowait)
		if !errors.Is(err, blkcrypto.ErrKeyEvicted) {
			t.Errorf("got %v, want %v", err, blkcrypto.ErrKeyEvicted)
		}
		s.Put()
	}
	if err := m.Evict(ctx, k.Key); err != nil {
		t.Fatal(err)
	}
}

// blkcrypto.md invariant 15.
func TestReferencesCountTheRequests(t *testing.T) {
	synctest.Test(t, testReferences)
}

func testReferences(t *testing.T) {
	m, e := newManager(t, 2)
	k := newKey(t, "k")
	var held []keyslot.Slot
	for i := range int64(5) {
		held = append(held, get(t, m, k))
		if got := m.Residents()[0].Requests; got != i+1 {
			t.Errorf("%d requests, want %d", got, i+1)
		}
	}
	for _, s := range held {
		s.Put()
	}
	wantQuiet(t, m, e)
	defer func() {
		if got, want := recover(), "keyslot: slot released twice"; got != want {
			t.Errorf("second put: panic %v, want %q", got, want)
		}
	}()
	held[0].Put()
}

func TestNoWaitNeitherWaitsNorPrograms(t *testing.T) {
	m, e := newManager(t, 1)
	a, b := newKey(t, "a"), newKey(t, "b")
	if _, err := m.Get(ctx, a.Key, true); !errors.Is(err, block.ErrWouldBlock) {
		t.Errorf("miss: %v, want %v", err, block.ErrWouldBlock)
	}
	if n := e.Calls(enginetest.Program); n != 0 {
		t.Errorf("%d programs, want 0", n)
	}
	s := get(t, m, a)
	s2, err := m.Get(ctx, a.Key, true)
	if err != nil {
		t.Fatalf("hit: %v", err)
	}
	if _, err := m.Get(ctx, b.Key, true); !errors.Is(err, block.ErrWouldBlock) {
		t.Errorf("all slots busy: %v, want %v", err, block.ErrWouldBlock)
	}
	s.Put()
	s2.Put()
	wantQuiet(t, m, e)
}

func TestUnsupportedConfigIsRefused(t *testing.T) {
	m, e := newManager(t, 1)
	c := smallUnits
	c.DUNBytes = 9
	for _, nowait := range []bool{false, true} {
		if _, err := m.Get(ctx, newKeyOf(t, "k", c).Key, nowait); !errors.Is(err, block.ErrNoCrypto) {
			t.Errorf("nowait %v: %v, want %v", nowait, err, block.ErrNoCrypto)
		}
	}
	if n := e.Calls(enginetest.Program); n != 0 {
		t.Errorf("%d programs, want 0", n)
	}
}

// blkcrypto.md section 7.7.
func TestPassthrough(t *testing.T) {
	var p blkcrypto.Profile
	p.Add(smallUnits)
	var told []*blkcrypto.Key
	receipt := blkcrypto.Place{Holder: "disk", Detail: "keyslot 7"}
	m := keyslot.NewPassthrough(keyslot.Passthrough{
		Name: "vol", Profile: func() blkcrypto.Profile { return p },
		Evict: func(_ context.Context, k *blkcrypto.Key) blkcrypto.Place { told = append(told, k); return receipt },
	})
	if m.Name() != "vol" || m.Profile() != p {
		t.Errorf("name %q, profile %v", m.Name(), m.Profile())
	}
	p = blkcrypto.Profile{}
	if got := m.Profile(); got != p {
		t.Errorf("profile after a change: %v, want %v", got, p)
	}
	k := newKey(t, "k")
	for _, nowait := range []bool{false, true} {
		s, err := m.Get(ctx, k.Key, nowait)
		if err != nil || s != (keyslot.Slot{}) {
			t.Errorf("get: %v, %v, want no slot and no error", s, err)
		}
		s.Put()
	}
	if got := m.EvictKey(ctx, k.Key); got != receipt || len(told) != 1 || told[0] != k.Key {
		t.Errorf("evict: %v, told %v", got, told)
	}
	receipt.Err = errFault
	if err := m.Evict(ctx, k.Key); !errors.Is(err, errFault) {
		t.Errorf("evict: %v, want %v", err, errFault)
	}
	if st := m.Stats(); st != (keyslot.Stats{}) || m.Residents() != nil {
		t.Errorf("stats %+v, residents %v, want none", st, m.Residents())
	}
	if err := m.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := k.Key.Evict(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get(ctx, k.Key, false); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
		t.Errorf("get of a dead key: %v, want %v", err, blkcrypto.ErrKeyEvicted)
	}
	none := keyslot.NewPassthrough(keyslot.Passthrough{Name: "bare", Profile: func() blkcrypto.Profile { return p }})
	if got := none.EvictKey(ctx, k.Key); got.Err != nil || got.Holder != "bare" {
		t.Errorf("evict without a function: %+v", got)
	}
	for what, f := range map[string]func(){
		"reprogram": func() { _ = m.Reprogram() },
		"over":      func() { keyslot.Over(nil, m) },
		"no slots":  func() { newManager(t, 0) },
	} {
		if !panics(f) {
			t.Errorf("%s of a manager without slots does not panic", what)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// Get and Put are on the path of every encrypted request.
func TestHitDoesNotAllocate(t *testing.T) {
	m, _ := newManager(t, 2)
	a, b := newKey(t, "a"), newKey(t, "b")
	use(t, m, a)
	use(t, m, b)
	if n := testing.AllocsPerRun(100, func() {
		for _, k := range []testKey{a, b} {
			s, err := m.Get(ctx, k.Key, true)
			if err != nil {
				t.Fatal(err)
			}
			s.Put()
		}
	}); n != 0 {
		t.Errorf("%v allocations a hit, want 0", n)
	}
}

func BenchmarkGetPut(b *testing.B) {
	for _, keys := range []int{1, 2, 32} {
		m, _ := newManager(b, 32)
		ks := newKeys(b, keys)
		for _, k := range ks {
			use(b, m, k)
		}
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				s, err := m.Get(ctx, ks[i%keys].Key, true)
				if err != nil {
					b.Fatal(err)
				}
				s.Put()
			}
		})
		b.Run(fmt.Sprintf("parallel/keys=%d", keys), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.Int(); pb.Next(); i++ {
					s, err := m.Get(ctx, ks[uint(i)%uint(keys)].Key, true)
					if err != nil {
						b.Error(err)
						return
					}
					s.Put()
				}
			})
		})
	}
	// More keys than slots: each Get programs.
	b.Run("miss", func(b *testing.B) {
		m, _ := newManager(b, 32)
		ks := newKeys(b, 33)
		for i := 0; b.Loop(); i++ {
			s, err := m.Get(ctx, ks[i%len(ks)].Key, false)
			if err != nil {
				b.Fatal(err)
			}
			s.Put()
		}
	})
}
