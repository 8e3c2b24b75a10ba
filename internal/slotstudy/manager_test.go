package slotstudy

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

// A workload is a random trace, in the order of its starts.
type workload struct {
	engines, keys int
	events        []event
	program       time.Duration
	evict         time.Duration
}

type event struct {
	engine, key int
	evict       bool
	start, end  int64
}

func randomWorkload(rng *rand.Rand) workload {
	w := workload{
		engines: 1 + rng.IntN(2), keys: 1 + rng.IntN(12),
		// Not 0: what two goroutines do at one moment has no order.
		program: time.Duration(1+rng.IntN(5_000_000)) * time.Nanosecond, evict: time.Duration(1+rng.IntN(5_000_000)) * time.Nanosecond,
	}
	service := 1 + rng.Int64N(100_000_000)
	hot := rng.IntN(3) == 0
	for range 20 + rng.IntN(180) {
		e := event{engine: rng.IntN(w.engines), key: rng.IntN(w.keys), evict: rng.IntN(20) == 0, start: rng.Int64N(1_000_000_000)}
		if hot && rng.IntN(4) > 0 {
			e.key = 0
		}
		e.end = e.start + 1 + rng.Int64N(service)
		w.events = append(w.events, e)
	}
	slices.SortFunc(w.events, func(a, b event) int { return cmp.Compare(a.start, b.start) })
	return w
}

func (w workload) text() string {
	var b strings.Builder
	b.WriteString("keyway trace 1\n")
	for i := range w.engines {
		fmt.Fprintf(&b, "engine %d 32 \"e%d\"\n", i, i)
	}
	for i := range w.keys {
		fmt.Fprintf(&b, "key %d AES-256-XTS 512 \"k%d\"\n", i, i)
	}
	// As a writer has them: in the order of their ends.
	byEnd := slices.Clone(w.events)
	slices.SortFunc(byEnd, func(a, b event) int { return cmp.Compare(a.end, b.end) })
	for _, e := range byEnd {
		if e.evict {
			fmt.Fprintf(&b, "evict %d %d %d %d\n", e.engine, e.key, e.start, e.end)
		} else {
			fmt.Fprintf(&b, "read %d %d 0 0 4096 %d %d\n", e.engine, e.key, e.start, e.end)
		}
	}
	fmt.Fprintf(&b, "end %d\n", len(w.events))
	return b.String()
}

func (w workload) load(t *testing.T) *Load {
	t.Helper()
	l, _, err := Read(strings.NewReader(w.text()), nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// after returns the event that ended last before event i began, -1 for none.
func (w workload) after(i int) int {
	best := -1
	for j, e := range w.events[:i] {
		if e.end <= w.events[i].start && (best < 0 || e.end >= w.events[best].end) {
			best = j
		}
	}
	return best
}

// run has real managers serve the workload: each request is a goroutine that begins
// after the event it follows, holds its slot as long as it took, and tells when it got
// it.
func (w workload) run(t *testing.T, slots int) (began []int64, all []keyslot.Stats, last int64) {
	began = make([]int64, len(w.events))
	done := make([]chan struct{}, len(w.events))
	ended := make([]int64, len(w.events))
	for i := range done {
		done[i] = make(chan struct{})
		began[i] = -1
	}
	var managers []*keyslot.Manager
	for range w.engines {
		e := enginetest.New(t, slots)
		e.Before = func(c enginetest.Call) {
			switch c.Op {
			case enginetest.Program:
				time.Sleep(w.program)
			case enginetest.Evict:
				time.Sleep(w.evict)
			}
		}
		managers = append(managers, keyslot.New(e))
	}
	var keys []*blkcrypto.Key
	for i := range w.keys {
		raw := make([]byte, 64)
		raw[0] = byte(i + 1)
		b, err := secret.Copy(raw)
		if err != nil {
			t.Fatal(err)
		}
		k, err := blkcrypto.NewKey(fmt.Sprint(i), blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 512, DUNBytes: 8}, b)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	ctx := context.Background()
	begin := time.Now()
	var wg sync.WaitGroup
	for i, e := range w.events {
		wg.Go(func() {
			defer func() {
				if !e.evict {
					ended[i] = int64(time.Since(begin))
				}
				close(done[i])
			}()
			if after := w.after(i); after >= 0 {
				<-done[after]
				time.Sleep(time.Duration(e.start - w.events[after].end))
			} else {
				time.Sleep(time.Duration(e.start))
			}
			m := managers[e.engine]
			if e.evict {
				for j, o := range w.events[:i] {
					if !o.evict && o.engine == e.engine && o.key == e.key {
						<-done[j]
					}
				}
				if err := m.Evict(ctx, keys[e.key]); err != nil {
					t.Error(err)
				}
				return
			}
			s, err := m.Get(ctx, keys[e.key], false)
			if err != nil {
				t.Error(err)
				return
			}
			began[i] = int64(time.Since(begin))
			time.Sleep(time.Duration(e.end - e.start))
			s.Put()
		})
	}
	wg.Wait()
	for _, m := range managers {
		all = append(all, m.Stats())
	}
	for _, k := range keys {
		if _, err := k.Evict(ctx); err != nil {
			t.Error(err)
		}
	}
	return began, all, slices.Max(ended)
}

// TestReplayIsWhatTheManagerDoes is why the study can be believed: on random traces
// every request gets its slot at the same nanosecond as from a keyslot.Manager, and the
// counts are equal.
func TestReplayIsWhatTheManagerDoes(t *testing.T) {
	waits, blocked, evicted := 0, 0, 0
	for seed := range uint64(60) {
		w := randomWorkload(rand.New(rand.NewPCG(seed, 5)))
		l := w.load(t)
		for _, slots := range []int{1, 2, 3, 5, 8} {
			synctest.Test(t, func(t *testing.T) {
				began, stats, last := w.run(t, slots)
				r := newReplay(l, slots, int64(w.program), int64(w.evict))
				got := make([]int64, len(w.events))
				for i := range got {
					got[i] = -1
				}
				r.observe = func(i int32, at int64) { got[i] = at }
				r.run()
				for i := range got {
					if got[i] != began[i] {
						t.Fatalf("seed %d, %d slots: event %d %+v got its slot at %d, and from a manager at %d", seed, slots, i, w.events[i], got[i], began[i])
					}
				}
				var sum keyslot.Stats
				for _, s := range stats {
					sum.Programs += s.Programs
					sum.Waits += s.Waits
					sum.Evictions += s.Evictions
				}
				row := r.row
				if row.Programs != int(sum.Programs) || row.Waits != int(sum.Waits) || row.Evicted != int(sum.Evictions) {
					t.Errorf("seed %d, %d slots: %d programs, %d waits, %d evictions, and of a manager %+v", seed, slots, row.Programs, row.Waits, row.Evicted, sum)
				}
				if end := w.events[0].start + l.facts.Span + int64(row.Added); end != last {
					t.Errorf("seed %d, %d slots: the last request ended at %d, with a manager at %d", seed, slots, end, last)
				}
				waits, blocked, evicted = waits+row.Waits, blocked+row.Blocked, evicted+row.Evicted
			})
			if t.Failed() {
				return
			}
		}
	}
	if waits < 1000 || blocked < 500 || evicted < 100 {
		t.Errorf("only %d waits, %d for a slot, and %d evictions: the traces are too easy", waits, blocked, evicted)
	}
}

// TestHotKeyPassesAWaiterAsOften as it does in the manager: many short requests of one
// key, and few of others that wait for its slot.
func TestHotKeyPassesAWaiterAsOften(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	w := workload{engines: 1, keys: 4, program: 1000, evict: 1000}
	for range 1500 {
		start := rng.Int64N(100_000_000)
		w.events = append(w.events, event{start: start, end: start + 200_000 + rng.Int64N(1_000_000)})
	}
	for i := range 12 {
		start := rng.Int64N(90_000_000)
		w.events = append(w.events, event{key: 1 + i%3, start: start, end: start + rng.Int64N(1_000_000)})
	}
	slices.SortFunc(w.events, func(a, b event) int { return cmp.Compare(a.start, b.start) })
	l := w.load(t)
	synctest.Test(t, func(t *testing.T) {
		began, _, _ := w.run(t, 1)
		r := newReplay(l, 1, 1000, 1000)
		most := 0
		r.observe = func(i int32, at int64) {
			if at != began[i] {
				t.Errorf("event %d got its slot at %d, and from a manager at %d", i, at, began[i])
			}
			most = max(most, r.engines[0].passed)
		}
		r.run()
		if most != maxPassed {
			t.Errorf("%d hits passed at most, want %d: the trace is too easy", most, maxPassed)
		}
	})
}
