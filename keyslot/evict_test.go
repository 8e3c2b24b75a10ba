package keyslot_test

import (
	"context"
	"errors"
	"fmt"
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

// blkcrypto.md invariants 21, 22 and 25.
func TestEvictWaitsForInflight(t *testing.T) {
	for _, n := range slotNums {
		synctest.Test(t, func(t *testing.T) {
			m, e := newManager(t, n)
			k, other := newKey(t, "k"), newKey(t, "other")
			if n > 1 {
				use(t, m, other)
			}
			s := get(t, m, k)
			start := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() {
				receipt, err := k.Key.Evict(ctx)
				if d := time.Since(start); err != nil || d != time.Second {
					t.Errorf("evicted after %v, %v, want 1s", d, err)
				}
				if at := e.Where(k.bytes); len(at) != 0 || len(resident(m, k)) != 0 {
					t.Errorf("the key is in slots %v of the engine, %v of the table", at, resident(m, k))
				}
				want := blkcrypto.Place{Holder: m.Name(), Detail: fmt.Sprintf("keyslot %d", min(n-1, 1))}
				if !slices.Equal(receipt.Places, []blkcrypto.Place{want}) {
					t.Errorf("receipt %+v, want %+v", receipt.Places, want)
				}
			})
			synctest.Wait()
			for _, nowait := range []bool{false, true} {
				if _, err := m.Get(ctx, k.Key, nowait); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
					t.Errorf("get during the eviction: %v, want %v", err, blkcrypto.ErrKeyEvicted)
				}
			}
			if err := holds(s, k); err != nil {
				t.Errorf("the request in flight: %v", err)
			}
			time.Sleep(time.Second)
			s.Put()
			wg.Wait()
			if n > 1 && len(e.Where(other.bytes)) != 1 {
				t.Error("another key has lost its slot (dm-fscrypt.md invariant 58)")
			}
			wantQuiet(t, m, e)
		})
	}
}

// blkcrypto.md invariant 22: usable or gone, nothing between.
func TestEvictGivenUpChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 2)
		k := newKey(t, "k")
		s := get(t, m, k)
		c, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := m.Evict(c, k.Key)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		if want := `the test engine: evict "k" (AES-256-XTS, raw, 512-byte units, 8 DUN bytes): keyslot 0 is in use by 1 request: context deadline exceeded`; err.Error() != want {
			t.Errorf("got  %v\nwant %v", err, want)
		}
		use(t, m, k)
		s.Put()
		s, err = m.Get(ctx, k.Key, true)
		if err != nil {
			t.Fatalf("get after the eviction was given up: %v", err)
		}
		s.Put()
		if n := e.Calls(enginetest.Program); n != 1 {
			t.Errorf("%d programs, want 1", n)
		}
		wantQuiet(t, m, e)
	})
}

// A stream of requests for the key must not keep its eviction waiting, and
// afterwards the key, which is alive, is programmed again.
func TestEvictOfAHotKeyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 2)
		k := newKey(t, "k")
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for i := range 3 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				for range 1000 {
					select {
					case <-stop:
						return
					default:
					}
					s := get(t, m, k)
					time.Sleep(3 * time.Millisecond)
					s.Put()
				}
				t.Error("the eviction never ends")
			})
		}
		time.Sleep(10 * time.Millisecond)
		start := time.Now()
		for range 5 {
			if err := m.Evict(ctx, k.Key); err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(start); d > 5*4*time.Millisecond {
			t.Errorf("5 evictions took %v, want one request each", d)
		}
		close(stop)
		wg.Wait()
		if n := e.Calls(enginetest.Program); n < 5 {
			t.Errorf("%d programs, want at least 5", n)
		}
		wantQuiet(t, m, e)
	})
}

// blkcrypto.md race R6 in its other order: the key is being programmed when
// the eviction comes.
func TestEvictWaitsForProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 2)
		k := newKey(t, "k")
		e.Before = func(c enginetest.Call) {
			if c.Op == enginetest.Program {
				time.Sleep(time.Second)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { use(t, m, k) })
		synctest.Wait()
		if _, err := k.Key.Evict(ctx); err != nil {
			t.Error(err)
		}
		if at := e.Where(k.bytes); len(at) != 0 {
			t.Errorf("after the eviction the key is in slots %v", at)
		}
		wg.Wait()
		wantQuiet(t, m, e)
	})
}

// A key whose slot is being taken for another one is gone when that is done.
func TestEvictOfTheVictim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 1)
		old, k := newKey(t, "old"), newKey(t, "k")
		use(t, m, old)
		e.Before = func(enginetest.Call) { time.Sleep(time.Second) }
		var wg sync.WaitGroup
		wg.Go(func() {
			s, err := m.Get(ctx, k.Key, false)
			if err != nil {
				t.Error(err)
			}
			s.Put()
		})
		synctest.Wait()
		if receipt, err := old.Key.Evict(ctx); err != nil || receipt.Places[0].Detail != "in no keyslot" {
			t.Errorf("%+v, %v", receipt, err)
		}
		if at := e.Where(old.bytes); len(at) != 0 {
			t.Errorf("after the eviction the key is in slots %v", at)
		}
		wg.Wait()
		if at := e.Where(k.bytes); len(at) != 1 {
			t.Errorf("the new key is in slots %v, want one", at)
		}
		wantQuiet(t, m, e)
	})
}

// blkcrypto.md invariant 23, dm-fscrypt.md invariant 55.
func TestEvictOfAKeyThatIsNowhere(t *testing.T) {
	m, e := newManager(t, 2)
	never, once := newKey(t, "never"), newKey(t, "once")
	want := blkcrypto.Place{Holder: "the test engine", Detail: "in no keyslot"}
	if got := m.EvictKey(ctx, never.Key); got != want {
		t.Errorf("never used: %+v, want %+v", got, want)
	}
	use(t, m, once)
	for i := range 2 {
		if _, err := once.Key.Evict(ctx); err != nil {
			t.Errorf("eviction %d: %v", i, err)
		}
	}
	if got := m.EvictKey(ctx, once.Key); got != want {
		t.Errorf("after its eviction: %+v, want %+v", got, want)
	}
	if n := e.Calls(enginetest.Evict); n != 1 {
		t.Errorf("%d evictions by the engine, want 1", n)
	}
	dead, stop := context.WithCancel(ctx)
	stop()
	if got := m.EvictKey(dead, never.Key); got != want {
		t.Errorf("with a cancelled context: %+v, want %+v", got, want)
	}
	if n := testing.AllocsPerRun(100, func() { m.EvictKey(ctx, never.Key) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// blkcrypto.md invariant 24.
func TestFailedEvictionIsReportedAndCanBeRepeated(t *testing.T) {
	for _, n := range slotNums {
		m, e := newManager(t, n)
		k := newKey(t, "k")
		use(t, m, k)
		e.Fault = fault(enginetest.Evict, func(c enginetest.Call) bool { return c.Nth < 2 })
		for i := range 2 {
			receipt, err := k.Key.Evict(ctx)
			if !errors.Is(err, errFault) || receipt.Places[0].Detail != "keyslot 0" {
				t.Errorf("eviction %d: %+v, %v, want %v", i, receipt, err, errFault)
			}
			if at := resident(m, k); !slices.Equal(at, []int{0}) || m.Stats().Quarantined != 1 {
				t.Errorf("key in slots %v, %+v, want slot 0 in quarantine", at, m.Stats())
			}
		}
		if r := m.Residents()[0]; r.Quarantined != errFault.Error() || r.Key != "k" {
			t.Errorf("resident %+v", r)
		}
		if _, err := k.Key.Evict(ctx); err != nil {
			t.Error(err)
		}
		if e.Occupied() != 0 || m.Stats().Quarantined != 0 {
			t.Errorf("engine holds %d keys, %+v", e.Occupied(), m.Stats())
		}
		for _, k := range newKeys(t, n) {
			use(t, m, k)
		}
		wantQuiet(t, m, e)
	}
}

// Two keys may be in one slot after a failure; both may be evicted at once,
// while others want the slot.
func TestTwoEvictionsOfOneQuarantinedSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 2)
		a, b, c := newKey(t, "a"), newKey(t, "b"), newKey(t, "c")
		use(t, m, a)
		s := get(t, m, c)
		e.Fault = func(call enginetest.Call) error { return errFault }
		if _, err := m.Get(ctx, b.Key, false); !errors.Is(err, errFault) {
			t.Fatalf("got %v, want %v", err, errFault)
		}
		e.Fault = nil
		e.Before = func(call enginetest.Call) {
			if call.Op != enginetest.Crypt {
				time.Sleep(time.Second)
			}
		}
		var wg sync.WaitGroup
		next := newKeys(t, 3)
		for _, k := range next {
			wg.Go(func() { use(t, m, k) }) // all slots are busy or in quarantine
		}
		synctest.Wait()
		for _, k := range []testKey{a, b} {
			wg.Go(func() {
				if _, err := k.Key.Evict(ctx); err != nil {
					t.Error(err)
				}
				if at := e.Where(k.bytes); len(at) != 0 {
					t.Errorf("%v is in slots %v", k, at)
				}
			})
		}
		wg.Wait()
		if n := e.Calls(enginetest.Evict); n != 2 {
			t.Errorf("%d evictions by the engine, want 2: one failed, one for both", n)
		}
		if err := holds(s, c); err != nil {
			t.Error(err)
		}
		s.Put()
		for _, k := range next {
			use(t, m, k)
		}
		wantQuiet(t, m, e)
	})
}

// A waiter with a dead key does not wait for a slot that it may not have.
func TestWaiterOfADeadKeyHearsOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newManager(t, 1)
		k, other := newKey(t, "k"), newKey(t, "other")
		use(t, m, k) // so that the manager is a holder
		s := get(t, m, other)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := m.Get(ctx, k.Key, false); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
				t.Errorf("got %v, want %v", err, blkcrypto.ErrKeyEvicted)
			}
		})
		synctest.Wait()
		if _, err := k.Key.Evict(ctx); err != nil {
			t.Error(err)
		}
		wg.Wait() // before the slot is put
		s.Put()
	})
}

// blkcrypto.md race R4: the request is complete, the eviction begins at once;
// and R13: equal bytes, another identity (dm-fscrypt.md invariant 56).
func TestCompleteEvictAddAgain(t *testing.T) {
	m, e := newManager(t, 2)
	for range 200 {
		k := newKey(t, "same bytes")
		s := get(t, m, k)
		done := make(chan error)
		go func() {
			_, err := k.Key.Evict(ctx)
			done <- err
		}()
		s.Put()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if e.Occupied() != 0 {
			t.Fatal("the key is still in the engine")
		}
	}
	wantQuiet(t, m, e)
}

func TestCloseEmptiesTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 3)
		keys := newKeys(t, 3)
		for _, k := range keys {
			use(t, m, k)
		}
		s := get(t, m, keys[0])
		// One slot in quarantine, which two keys share.
		e.Fault = func(c enginetest.Call) error {
			if c.Slot == 1 && c.Op != enginetest.Crypt {
				return errFault
			}
			return nil
		}
		lost := newKey(t, "lost")
		if _, err := m.Get(ctx, lost.Key, false); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		c, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := m.Close(c)
		if !errors.Is(err, errFault) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v, want both %v and %v", err, errFault, context.DeadlineExceeded)
		}
		if at := e.Where(keys[2].bytes); len(at) != 0 {
			t.Errorf("idle key still in slots %v", at)
		}
		if _, err := m.Get(ctx, keys[0].Key, false); !errors.Is(err, block.ErrClosed) {
			t.Errorf("get after close: %v, want %v", err, block.ErrClosed)
		}
		s.Put()
		e.Fault = nil
		if err := m.Close(ctx); err != nil {
			t.Errorf("second close: %v", err)
		}
		if e.Occupied() != 0 || m.Residents() != nil {
			t.Errorf("engine holds %d keys, table %v", e.Occupied(), m.Residents())
		}
		// The manager is no longer among the holders of what was in its slots.
		for _, k := range append(keys, lost) {
			if receipt, err := k.Key.Evict(ctx); err != nil || (k.Key != keys[1].Key && len(receipt.Places) != 0) {
				t.Errorf("eviction of %v after close: %+v, %v, want no places", k, receipt, err)
			}
		}
	})
}

// blkcrypto.md invariant 20, for slots idle, busy, in quarantine and empty.
func TestResetPutsKeysBackBeforeUse(t *testing.T) {
	for _, n := range slotNums {
		synctest.Test(t, func(t *testing.T) {
			m, e := newManager(t, n+1)
			keys := newKeys(t, n)
			for _, k := range keys {
				use(t, m, k)
			}
			s := get(t, m, keys[n-1])
			var wg sync.WaitGroup
			for range 2 { // a second reset waits for the first
				wg.Go(func() {
					if err := m.Reset(e.Lose); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			for _, k := range keys {
				wg.Go(func() { use(t, m, k) })
				if _, err := m.Get(ctx, k.Key, true); !errors.Is(err, block.ErrWouldBlock) {
					t.Errorf("get during the reset: %v, want %v", err, block.ErrWouldBlock)
				}
			}
			time.Sleep(time.Second)
			if err := holds(s, keys[n-1]); err != nil { // the reset waits
				t.Error(err)
			}
			s.Put()
			wg.Wait()
			for i, k := range keys {
				if at := e.Where(k.bytes); !slices.Equal(at, []int{i}) {
					t.Errorf("%v is in slots %v, want %d", k, at, i)
				}
			}
			if got := e.Calls(enginetest.Program); got != 3*n {
				t.Errorf("%d programs, want %d", got, 3*n)
			}
			wantQuiet(t, m, e)
		})
	}
}

// dm-fscrypt.md invariants 54 and 65, blkcrypto.md race R5.
func TestEvictRacingResetWins(t *testing.T) {
	for _, giveUp := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m, e := newManager(t, 3)
			k, other := newKey(t, "k"), newKey(t, "other")
			use(t, m, other)
			s := get(t, m, k)
			c, cancel := context.WithCancel(ctx)
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := m.Evict(c, k.Key); (err != nil) != giveUp {
					t.Errorf("evict: %v", err)
				}
			})
			synctest.Wait()
			wg.Go(func() {
				if err := m.Reset(e.Lose); err != nil {
					t.Errorf("reset: %v", err)
				}
			})
			synctest.Wait()
			if giveUp {
				cancel()
				synctest.Wait()
			}
			s.Put()
			wg.Wait()
			want, programs := 0, 5 // at first, at the reset, again
			if giveUp {
				want, programs = 1, 4
			}
			if at := e.Where(k.bytes); len(at) != want {
				t.Errorf("given up %v: the key is in slots %v, want %d", giveUp, at, want)
			}
			use(t, m, k) // alive: it is there, or is programmed
			use(t, m, other)
			if n := e.Calls(enginetest.Program); n != programs {
				t.Errorf("given up %v: %d programs, want %d", giveUp, n, programs)
			}
			cancel()
			wantQuiet(t, m, e)
		})
	}
}

// The eviction of the key begins while the reset is at another slot.
func TestResetLeavesDeadKeysOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 3)
		keys := newKeys(t, 3)
		for _, k := range keys {
			use(t, m, k)
		}
		e.Before = func(c enginetest.Call) { time.Sleep(time.Second) }
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := m.Reprogram(); err != nil {
				t.Errorf("reset: %v", err)
			}
		})
		time.Sleep(time.Second / 2) // in the program of slot 0
		for _, k := range keys[:2] {
			wg.Go(func() {
				if _, err := k.Key.Evict(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i, k := range keys {
			if at := e.Where(k.bytes); len(at) != i/2 {
				t.Errorf("%v is in slots %v, want %d", k, at, i/2)
			}
		}
		if n := e.Calls(enginetest.Program); n != 3+2 {
			t.Errorf("%d programs, want 5: the dead key of slot 1 is not put back", n)
		}
		e.Before = nil
		use(t, m, keys[2])
		wantQuiet(t, m, e)
	})
}

func TestResetFailureIsOneKeys(t *testing.T) {
	m, e := newManager(t, 3)
	keys := newKeys(t, 3)
	for _, k := range keys {
		use(t, m, k)
	}
	e.Fault = fault(enginetest.Program, func(c enginetest.Call) bool { return c.Slot == 1 })
	err := m.Reset(e.Lose)
	if want := "the test engine: keyslot 1: scripted fault"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %v", err, want)
	}
	if st := m.Stats(); st.Resident != 2 || st.Failures != 1 || st.Quarantined != 0 {
		t.Errorf("stats %+v, want 2 residents and one failure", st)
	}
	wantQuiet(t, m, e)
	e.Fault = nil
	for _, k := range keys {
		use(t, m, k)
	}
	wantQuiet(t, m, e)
}

func TestResetClearsQuarantineOnlyAfterConfirmedErase(t *testing.T) {
	m, e := newManager(t, 1)
	k := newKey(t, "k")
	use(t, m, k)
	e.Fault = fault(enginetest.Evict, always)
	if err := m.Evict(ctx, k.Key); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	if err := m.Reprogram(); !errors.Is(err, errFault) || m.Stats().Quarantined != 1 {
		t.Errorf("reset: %v, %+v, want the slot still in quarantine", err, m.Stats())
	}
	e.Fault = nil
	if err := m.Reset(e.Lose); err != nil || m.Stats().Quarantined != 0 {
		t.Errorf("reset: %v, %+v, want no quarantine", err, m.Stats())
	}
	if n := e.Calls(enginetest.Program); n != 1 {
		t.Errorf("%d programs, want 1: the key was evicted", n)
	}
	use(t, m, k)
	wantQuiet(t, m, e)
}

// blkcrypto.md race R23: one manager in front of two devices.
func TestEvictSeesTheOtherDevicesRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newManager(t, 2)
		k := newKey(t, "k")
		held := []keyslot.Slot{get(t, m, k), get(t, m, k)}
		c, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := k.Key.Evict(c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		held[0].Put()
		if err := holds(held[1], k); err != nil {
			t.Error(err)
		}
		held[1].Put()
		if _, err := k.Key.Evict(ctx); err != nil {
			t.Errorf("second attempt: %v", err)
		}
	})
}

// dm-fscrypt.md invariants 53 and 54: nobody has to ask again for a slot to come
// back.
func TestQuarantinedSlotIsRetriedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 2)
		k, other := newKey(t, "k"), newKey(t, "other")
		use(t, m, k)
		use(t, m, other)
		var failing atomic.Bool
		failing.Store(true)
		var mu sync.Mutex
		var attempts []time.Duration
		start := time.Now()
		e.Fault = func(c enginetest.Call) error {
			if c.Op != enginetest.Evict || !failing.Load() {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			attempts = append(attempts, time.Since(start))
			return errFault
		}
		if _, err := k.Key.Evict(ctx); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second) // tried after 1, 3 and 7 s
		synctest.Wait()
		mu.Lock()
		if want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}; !slices.Equal(attempts, want) {
			t.Errorf("tried after %v, want %v", attempts, want)
		}
		mu.Unlock()
		use(t, m, other) // the other slot serves meanwhile
		failing.Store(false)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if st := m.Stats(); st.Quarantined != 0 || st.Resident != 1 || len(e.Where(k.bytes)) != 0 || len(e.Where(other.bytes)) != 1 {
			t.Errorf("%+v; the key is in %v, the other in %v", st, e.Where(k.bytes), e.Where(other.bytes))
		}
		if _, err := k.Key.Evict(ctx); err != nil {
			t.Errorf("asked again: %v", err)
		}
		failing.Store(true)
		if err := m.Close(ctx); !errors.Is(err, errFault) {
			t.Errorf("close: %v", err)
		}
		n := len(attempts)
		time.Sleep(time.Hour)
		if len(attempts) != n {
			t.Error("a closed manager goes on trying")
		}
		failing.Store(false)
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}
