package keyslot_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

// A history is one random run: workers use, cancel, evict, kill and replace
// keys and reset an engine that fails now and then, while the engine watches
// that no slot in use is touched and that calls do not overlap.
type history struct {
	t    *testing.T
	seed uint64
	m    *keyslot.Manager
	e    *enginetest.Engine

	mu    sync.Mutex
	keys  []testKey
	dead  []testKey // evicted with success
	names int

	got, failed, cancelled, evicted, refused atomic.Int64
}

// blkcrypto.md invariants 13, 15, 17 to 22, 24, 25 and races R1 to R6, R13,
// R15, with real goroutines and, in CI, the race detector.
func TestRandomHistories(t *testing.T) {
	const steps = 1500
	var sum [5]int64
	for _, n := range slotNums {
		for _, faults := range []int{0, 20} { // one call in so many fails
			t.Run(fmt.Sprintf("slots=%d/faults=%d", n, faults), func(t *testing.T) {
				seed := rand.Uint64()
				m, e := newManager(t, n)
				h := &history{t: t, seed: seed, m: m, e: e}
				h.run(steps, faults)
				for i, n := range []*atomic.Int64{&h.got, &h.failed, &h.cancelled, &h.refused, &h.evicted} {
					sum[i] += n.Load()
				}
			})
		}
	}
	for i, what := range []string{"got a slot", "failed", "were cancelled", "would have blocked", "evictions"} {
		if sum[i] == 0 {
			t.Errorf("the histories are poor: no requests that %s", what)
		}
	}
}

func (h *history) run(steps, faults int) {
	slots := h.e.Slots()
	for range min(slots, 8) + 3 {
		h.keys = append(h.keys, h.fresh())
	}
	var faulty atomic.Bool
	faulty.Store(faults > 0)
	h.e.Before = func(c enginetest.Call) {
		if rand.IntN(3) == 0 {
			runtime.Gosched()
		}
	}
	h.e.Fault = func(c enginetest.Call) error {
		if c.Op != enginetest.Crypt && faulty.Load() && rand.IntN(faults) == 0 {
			return errFault
		}
		return nil
	}
	var wg sync.WaitGroup
	for w := range uint64(6) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(h.seed, w))
			for range steps {
				h.step(rng)
			}
		})
	}
	wg.Wait()
	faulty.Store(false)
	if err := h.m.Reprogram(); err != nil {
		h.errorf("reset without faults: %v", err)
	}
	wantQuiet(h.t, h.m, h.e)
	for _, k := range h.keys {
		if !k.Evicted() { // or half dead: an eviction failed, and nobody tried again
			use(h.t, h.m, k)
			if at := h.e.Where(k.bytes); len(at) != 1 {
				h.errorf("%v is in slots %v, want one (invariant 13)", k, at)
			}
		}
		if _, err := k.Key.Evict(ctx); err != nil {
			h.errorf("%v", err)
		}
		h.dead = append(h.dead, k)
	}
	for _, k := range h.dead {
		if at := h.e.Where(k.bytes); len(at) != 0 {
			h.errorf("dead %v is in slots %v (invariant 21)", k, at)
		}
	}
	if st := h.m.Stats(); st.Resident != 0 || st.Quarantined != 0 || h.e.Occupied() != 0 {
		h.errorf("at the end %+v, engine holds %d", st, h.e.Occupied())
	}
}

func (h *history) errorf(format string, args ...any) {
	h.t.Helper()
	h.t.Errorf("seed %#x: %s", h.seed, fmt.Sprintf(format, args...))
}

func (h *history) fresh() testKey {
	h.names++
	return newKey(h.t, fmt.Sprintf("h%d", h.names))
}

func (h *history) pick(rng *rand.Rand) (int, testKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// A hot key, and the others alike.
	i := 0
	if rng.IntN(3) > 0 {
		i = rng.IntN(len(h.keys))
	}
	return i, h.keys[i]
}

func (h *history) step(rng *rand.Rand) {
	i, k := h.pick(rng)
	c := ctx
	if rng.IntN(10) == 0 {
		var cancel func()
		c, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(50))*time.Microsecond)
		defer cancel()
	}
	switch n := rng.IntN(1000); {
	case n < 970:
		h.use(c, k, rng.IntN(4) == 0)
	case n < 985:
		err := h.m.Evict(c, k.Key)
		if err != nil && !errors.Is(err, errFault) && !errors.Is(err, context.DeadlineExceeded) {
			h.errorf("evict: %v", err)
		}
	case n < 995:
		h.kill(c, i, k)
	default:
		if err := h.m.Reset(h.e.Lose); err != nil && !errors.Is(err, errFault) {
			h.errorf("reset: %v", err)
		}
	}
}

func (h *history) use(c context.Context, k testKey, nowait bool) {
	s, err := h.m.Get(c, k.Key, nowait)
	switch {
	case err == nil:
	case errors.Is(err, block.ErrWouldBlock) && nowait:
		h.refused.Add(1)
		return
	case errors.Is(err, context.DeadlineExceeded) && c != ctx:
		h.cancelled.Add(1)
		return
	case errors.Is(err, blkcrypto.ErrKeyEvicted) && k.Evicted():
		return
	case errors.Is(err, errFault):
		h.failed.Add(1)
		return
	default:
		h.errorf("get: %v", err)
		return
	}
	h.got.Add(1)
	for range 2 { // the same key from first to last
		if err := holds(s, k); err != nil {
			h.errorf("%v", err)
		}
	}
	s.Put()
}

// kill evicts a key for good and puts another in its place.
func (h *history) kill(c context.Context, i int, k testKey) {
	_, err := k.Key.Evict(c)
	if err != nil {
		if !errors.Is(err, errFault) && !errors.Is(err, context.DeadlineExceeded) {
			h.errorf("kill: %v", err)
		}
		return // dead but not gone: somebody tries again
	}
	if at := h.e.Where(k.bytes); len(at) != 0 {
		h.errorf("evicted %v is in slots %v (invariant 21)", k, at)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys[i].Key == k.Key {
		h.evicted.Add(1)
		h.dead = append(h.dead, k)
		h.keys[i] = h.fresh()
	}
}
