package keyslot_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

// hammer uses k without a pause from several goroutines, whose requests
// overlap so that the slot is never idle, until stop. It counts the hits.
func hammer(t *testing.T, wg *sync.WaitGroup, m *keyslot.Manager, k testKey, stop *atomic.Bool, hits *atomic.Int64) {
	for i := range 3 {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			for !stop.Load() {
				s, err := m.Get(ctx, k.Key, false)
				if err != nil {
					t.Error(err)
					return
				}
				if hits.Add(1) > 10*passBound {
					s.Put()
					t.Error("the hits never end")
					return
				}
				time.Sleep(3 * time.Millisecond)
				s.Put()
			}
		})
	}
}

// maxPassed of the manager, and the few that were under way.
const passBound = 64 + 3

// blkcrypto.md invariant 17: one slot, and a stream of hits on another key.
func TestHitsPassAWaiterABoundedNumberOfTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 1)
		a, b, c := newKey(t, "a"), newKey(t, "b"), newKey(t, "c")
		var wg sync.WaitGroup
		var stop atomic.Bool
		var hits atomic.Int64
		hammer(t, &wg, m, a, &stop, &hits)
		time.Sleep(10 * time.Millisecond)
		before := hits.Load()
		var mu sync.Mutex
		var order []string
		waiters := sync.WaitGroup{}
		for i, k := range []testKey{b, c} {
			waiters.Go(func() {
				time.Sleep(time.Duration(i) * time.Microsecond)
				use(t, m, k)
				mu.Lock()
				order = append(order, k.Name())
				mu.Unlock()
				if passed := hits.Load() - before; passed > int64(i+1)*passBound {
					t.Errorf("%d hits passed waiter %d, want at most %d", passed, i, (i+1)*passBound)
				}
			})
		}
		waiters.Wait()
		if passed := hits.Load() - before; passed < 32 {
			t.Errorf("%d hits passed two waiters: a slot is reprogrammed for each request", passed)
		}
		if want := []string{"b", "c"}; !slices.Equal(order, want) {
			t.Errorf("served in order %v, want %v", order, want)
		}
		stop.Store(true)
		wg.Wait()
		wantQuiet(t, m, e)
	})
}

// A hit that does not wait counts as a passing one, too.
func TestNoWaitHitsPassAWaiterABoundedNumberOfTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newManager(t, 1)
		a, b := newKey(t, "a"), newKey(t, "b")
		s := get(t, m, a)
		var wg sync.WaitGroup
		c, cancel := context.WithCancel(ctx)
		wg.Go(func() {
			if _, err := m.Get(c, b.Key, false); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
		synctest.Wait()
		n := 0
		for ; n <= passBound; n++ {
			s2, err := m.Get(ctx, a.Key, true)
			if errors.Is(err, block.ErrWouldBlock) {
				break
			}
			s2.Put()
		}
		if n == 0 || n > passBound {
			t.Errorf("%d hits passed the waiter, want 1 to %d", n, passBound)
		}
		cancel()
		wg.Wait()
		s2, err := m.Get(ctx, a.Key, true)
		if err != nil {
			t.Errorf("hit after the waiter has gone: %v", err)
		}
		s2.Put()
		s.Put()
	})
}

// While some key always waits, the requests of the mapped ones must still be
// served many at a time.
func TestOverloadIsServedInBatches(t *testing.T) {
	for _, n := range []int{1, 2, 3} {
		synctest.Test(t, func(t *testing.T) {
			m, e := newManager(t, n)
			var wg sync.WaitGroup
			const perWorker, workers = 200, 4
			keys := newKeys(t, n+3)
			for _, k := range keys {
				for range workers {
					wg.Go(func() {
						for range perWorker {
							s := get(t, m, k)
							time.Sleep(time.Millisecond)
							s.Put()
						}
					})
				}
			}
			wg.Wait()
			total := len(keys) * workers * perWorker
			if got := e.Calls(enginetest.Program); got > total/8 {
				t.Errorf("%d slots: %d programs for %d requests, want at most %d", n, got, total, total/8)
			}
			wantQuiet(t, m, e)
		})
	}
}

// blkcrypto.md invariant 17: first come, first served, whatever the key.
func TestWaitersAreServedInOrder(t *testing.T) {
	for _, n := range slotNums {
		synctest.Test(t, func(t *testing.T) {
			m, e := newManager(t, n)
			var busy []keyslot.Slot
			for _, k := range newKeys(t, n) {
				busy = append(busy, get(t, m, k))
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			var order, want []int
			for i := range 10 {
				k := newKey(t, fmt.Sprintf("w%d", i))
				want = append(want, i)
				wg.Go(func() {
					s := get(t, m, k)
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					time.Sleep(time.Second)
					s.Put()
				})
				synctest.Wait()
			}
			if got := m.Stats().Waits; got != 10 {
				t.Errorf("%d waits, want 10", got)
			}
			for _, s := range busy {
				s.Put()
				time.Sleep(time.Millisecond) // no two slots are free at one time
			}
			wg.Wait()
			if !slices.Equal(order, want) {
				t.Errorf("%d slots: served in order %v, want %v", n, order, want)
			}
			wantQuiet(t, m, e)
		})
	}
}

// blkcrypto.md invariant 17.
func TestWaiterCanBeCancelled(t *testing.T) {
	for _, n := range slotNums {
		synctest.Test(t, func(t *testing.T) {
			m, e := newManager(t, n)
			var busy []keyslot.Slot
			keys := newKeys(t, n)
			for _, k := range keys {
				busy = append(busy, get(t, m, k))
			}
			cause := errors.New("the client has gone")
			c, cancel := context.WithCancelCause(ctx)
			var wg sync.WaitGroup
			start := time.Now()
			wg.Go(func() {
				_, err := m.Get(c, newKey(t, "cancelled").Key, false)
				if !errors.Is(err, cause) {
					t.Errorf("got %v, want %v", err, cause)
				}
				if d := time.Since(start); d != time.Second {
					t.Errorf("returned after %v, want 1s", d)
				}
			})
			synctest.Wait()
			next := newKey(t, "next")
			wg.Go(func() { use(t, m, next) })
			synctest.Wait()
			// A hit still finds its slot, before and after.
			use(t, m, keys[0])
			time.Sleep(time.Second)
			cancel(cause)
			synctest.Wait()
			busy[0].Put()
			wg.Wait()
			for _, s := range busy[1:] {
				s.Put()
			}
			if got := e.Calls(enginetest.Program); got != n+1 {
				t.Errorf("%d slots: %d programs, want %d", n, got, n+1)
			}
			wantQuiet(t, m, e)
		})
	}
}

// Hits of other keys pass a slow engine (blkcrypto.md race R21), and its calls
// do not overlap (invariant 19).
func TestSlowProgramDelaysNoHit(t *testing.T) {
	for _, op := range []enginetest.Op{enginetest.Program, enginetest.Evict} {
		synctest.Test(t, func(t *testing.T) {
			m, e := newManager(t, 3)
			a, b := newKey(t, "a"), newKey(t, "b")
			use(t, m, a)
			use(t, m, b)
			e.Before = func(c enginetest.Call) {
				if c.Op == op {
					time.Sleep(time.Second)
				}
			}
			var wg sync.WaitGroup
			if op == enginetest.Program {
				for _, k := range newKeys(t, 2) { // more than may be programmed at once
					wg.Go(func() { use(t, m, k) })
				}
			} else {
				wg.Go(func() {
					if err := m.Evict(ctx, b.Key); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			start := time.Now()
			for range 10 * passBound {
				s, err := m.Get(ctx, a.Key, true)
				if err != nil {
					t.Fatalf("hit while the engine is busy with %v: %v", op, err)
				}
				s.Put()
			}
			if d := time.Since(start); d != 0 {
				t.Errorf("hits took %v while the engine was busy, want no time", d)
			}
			wg.Wait()
			wantQuiet(t, m, e)
		})
	}
}

// blkcrypto.md invariant 18, race R15: whatever the failed call left in the
// slot (the engine varies it), nobody meets it.
func TestProgramFailureIsOneRequests(t *testing.T) {
	for _, n := range slotNums {
		for variant := range 4 {
			synctest.Test(t, func(t *testing.T) {
				m, e := newManager(t, n)
				olds := newKeys(t, n+variant)
				for _, k := range olds {
					use(t, m, k)
				}
				bad, other := newKey(t, "bad"), newKey(t, "other")
				failed := e.Calls(enginetest.Program)
				e.Fault = fault(enginetest.Program, func(c enginetest.Call) bool { return c.Nth == failed })
				victim := olds[variant] // released longest ago of those in slots
				busy := get(t, m, olds[len(olds)-1])
				if n > 1 {
					busy.Put()
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := m.Get(ctx, bad.Key, false); !errors.Is(err, errFault) {
						t.Errorf("got %v, want %v", err, errFault)
					}
				})
				synctest.Wait()
				wg.Go(func() { use(t, m, other) })
				wg.Go(func() { use(t, m, bad) })
				synctest.Wait()
				if n == 1 {
					busy.Put()
				}
				wg.Wait()
				e.Fault = nil
				wantQuiet(t, m, e)
				if n > 2 && len(e.Where(victim.bytes)) != 0 {
					t.Errorf("the old key is still in slots %v", e.Where(victim.bytes))
				}
				for _, k := range append(olds, bad, other) {
					use(t, m, k)
				}
				if got := m.Stats(); got.Failures != 1 || got.Quarantined != 0 {
					t.Errorf("%d slots: %+v, want one failure and no quarantine", n, got)
				}
			})
		}
	}
}

func TestFailedSlotIsBlankAndUnmapped(t *testing.T) {
	m, e := newManager(t, 1)
	old, bad := newKey(t, "old"), newKey(t, "bad")
	use(t, m, old)
	e.Fault = fault(enginetest.Program, always)
	if _, err := m.Get(ctx, bad.Key, false); !errors.Is(err, errFault) {
		t.Errorf("got %v, want %v", err, errFault)
	}
	if e.Occupied() != 0 || m.Residents() != nil {
		t.Errorf("engine holds %d keys, table %v, want none", e.Occupied(), m.Residents())
	}
	wantQuiet(t, m, e)
}

// dm-fscrypt.md invariants 53, 54.
func TestSlotThatCannotBeEmptiedIsInQuarantine(t *testing.T) {
	m, e := newManager(t, 2)
	old, bad, c := newKey(t, "old"), newKey(t, "bad"), newKey(t, "c")
	use(t, m, old)
	use(t, m, c)
	e.Fault = func(call enginetest.Call) error {
		if call.Slot == 0 && call.Op != enginetest.Crypt {
			return errFault
		}
		return nil
	}
	if _, err := m.Get(ctx, bad.Key, false); !errors.Is(err, errFault) {
		t.Fatalf("got %v, want %v", err, errFault)
	}
	if st := m.Stats(); st.Quarantined != 1 || st.Failures != 2 {
		t.Errorf("stats %+v, want one slot in quarantine after two failures", st)
	}
	// Both may be in it; neither is found there, and nobody gets it.
	for _, k := range []testKey{old, bad} {
		if got := resident(m, k); !slices.Equal(got, []int{0}) {
			t.Errorf("%v may be in slots %v, want 0", k, got)
		}
	}
	for _, k := range append(newKeys(t, 3), old, bad) {
		use(t, m, k)
	}
	for _, call := range e.Log()[4:] {
		if call.Slot == 0 {
			t.Errorf("%v of the slot in quarantine", call.Op)
		}
	}
	// Eviction tries all places, tells of the failure, and can be repeated.
	use(t, m, old)
	receipt, err := old.Key.Evict(ctx)
	if !errors.Is(err, errFault) || len(receipt.Places) != 1 || receipt.Places[0].Detail != "keyslot 0, keyslot 1" {
		t.Errorf("evict: %+v, %v, want failure at keyslot 0 and success at 1", receipt, err)
	}
	if got := e.Where(old.bytes); slices.Contains(got, 1) {
		t.Errorf("the key is still in slots %v: one failure must not stop the others", got)
	}
	e.Fault = nil
	if receipt, err = old.Key.Evict(ctx); err != nil {
		t.Errorf("second eviction: %+v, %v", receipt, err)
	}
	if st := m.Stats(); st.Quarantined != 0 || len(e.Where(old.bytes)) != 0 {
		t.Errorf("stats %+v, key in slots %v, want no quarantine and none", st, e.Where(old.bytes))
	}
	if _, err := m.Get(ctx, old.Key, false); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
		t.Errorf("get of a dead key: %v", err)
	}
	wantQuiet(t, m, e)
}

// A slot is repaired for a key, and then the key's programming fails and
// leaves the slot in quarantine again, with that key perhaps in it.
func TestRepairedSlotFailsAgain(t *testing.T) {
	m, e := newManager(t, 1)
	old, k := newKey(t, "old"), newKey(t, "k")
	use(t, m, old)
	e.Fault = fault(enginetest.Evict, always)
	if err := m.Evict(ctx, old.Key); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	e.Fault = func(c enginetest.Call) error {
		if c.Op == enginetest.Evict && c.Nth == 1 {
			return nil
		}
		return errFault
	}
	if _, err := m.Get(ctx, k.Key, false); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	if at := e.Where(k.bytes); len(at) != 1 {
		t.Fatalf("key in slots %v of the engine, the test wants it there", at)
	}
	if at, before := resident(m, k), resident(m, old); len(at) != 1 || len(before) != 0 {
		t.Errorf("%v may be in slots %v, %v in %v, want one and none", k, at, old, before)
	}
	e.Fault = nil
	if receipt, err := k.Key.Evict(ctx); err != nil || len(e.Where(k.bytes)) != 0 {
		t.Errorf("evict: %+v, %v, key in slots %v", receipt, err, e.Where(k.bytes))
	}
	wantQuiet(t, m, e)
}

// With every slot in quarantine a request must not wait for ever: it tries to
// empty one, in turn, and fails with the engine's error, or goes on.
func TestAllSlotsInQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 2)
		e.Fault = func(enginetest.Call) error { return errFault }
		keys := newKeys(t, 8)
		for _, k := range keys {
			if _, err := m.Get(ctx, k.Key, false); !errors.Is(err, errFault) {
				t.Errorf("got %v, want %v", err, errFault)
			}
		}
		if st := m.Stats(); st.Quarantined != 2 {
			t.Errorf("stats %+v, want 2 slots in quarantine", st)
		}
		if n := len(m.Residents()); n != 2 {
			t.Errorf("%d keys may be in slots, want the 2 that the engine was told", n)
		}
		tried := map[int]int{}
		for _, c := range e.Log()[4:] {
			tried[c.Slot]++
		}
		if tried[0] != 3 || tried[1] != 3 {
			t.Errorf("attempts to empty the slots: %v, want 3 each", tried)
		}
		e.Fault = nil
		for _, k := range keys {
			use(t, m, k)
		}
		if st := m.Stats(); st.Quarantined != 1 {
			t.Errorf("stats %+v, want one slot repaired", st)
		}
		if n := len(e.Where(keys[7].bytes)); n != 1 {
			t.Errorf("key in %d slots, want 1", n)
		}
	})
}

// blkcrypto.md race R3: the slot is put while somebody finds it busy and
// begins to wait. Whatever the order, he gets it.
func TestNoReleaseIsMissed(t *testing.T) {
	m, e := newManager(t, 1)
	keys := newKeys(t, 2)
	c, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var begun, done atomic.Int64 // rounds
	var wg sync.WaitGroup
	const rounds = 20000
	wg.Go(func() {
		for i := range int64(rounds) {
			for spins := 0; begun.Load() <= i; spins++ {
				if spins%1000 == 999 {
					runtime.Gosched()
				}
				if spins%1000 == 999 && c.Err() != nil {
					return
				}
			}
			s, err := m.Get(c, keys[1].Key, false)
			if err != nil {
				t.Errorf("round %d: a release was missed: %v", i, err)
				cancel()
				return
			}
			s.Put()
			done.Add(1)
		}
	})
	for i := int64(1); i <= rounds && c.Err() == nil; i++ {
		s, err := m.Get(c, keys[0].Key, false)
		if err != nil {
			t.Fatal(err)
		}
		begun.Store(i)
		for range i % 1000 { // meets every step of the other
			_ = begun.Load()
		}
		s.Put()
		for done.Load() < i && c.Err() == nil {
			runtime.Gosched()
		}
	}
	wg.Wait()
	wantQuiet(t, m, e)
}

// blkcrypto.md invariant 37, as far as a manager can tell: a goroutine that
// has a slot does not need another to give it back, so one is enough for all.
func TestManyGoroutinesOnOneSlot(t *testing.T) {
	m, e := newManager(t, 1)
	keys := newKeys(t, 8)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 50 {
				k := keys[(i+j)%len(keys)]
				s, err := m.Get(ctx, k.Key, false)
				if err != nil {
					t.Error(err)
					return
				}
				if err := holds(s, k); err != nil {
					t.Error(err)
				}
				s.Put()
			}
		})
	}
	wg.Wait()
	wantQuiet(t, m, e)
}
