package slotstudy

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a study.
type Options struct {
	Slots          []int         // numbers of keyslots of each engine, ascending, each at least 1
	Program, Evict time.Duration // what programming a slot and emptying one take
	HitRate        float64       // of the hits that are possible, which part is enough; 0 to 1
}

// A Row is what a load meets with so many slots.
type Row struct {
	Slots    int
	Hits     int // requests that found their key in a slot, at once or after a wait
	Programs int // those that did not: each had its key programmed
	Evicted  int // slots that evictions emptied

	Waits    int // requests that waited: for a slot, for the engine, for an eviction
	Blocked  int // those of them that waited while requests used all slots
	Waited   time.Duration
	P50, P99 time.Duration // of those who waited
	MaxWait  time.Duration

	Programming time.Duration // that the engines took to program and to evict
	Added       time.Duration // by which the last request ended later than in the trace; less than 0 where evictions took longer there
}

// HitRate is the part of all requests that were hits.
func (r Row) HitRate() float64 {
	return float64(r.Hits) / float64(r.Hits+r.Programs)
}

// A Study is the result.
type Study struct {
	Facts
	Rows []Row

	// Enough is the index of the smallest number of slots with which hits are enough and
	// no request waits because all slots are in use; -1: none of them is enough.
	Enough int
}

// Run replays l with every number of slots.
func Run(ctx context.Context, l *Load, o Options) (*Study, error) {
	st := &Study{Facts: l.facts, Rows: make([]Row, len(o.Slots)), Enough: -1}
	// With as many slots as none was ever missed, more change nothing.
	var steady atomic.Int64
	steady.Store(math.MaxInt64)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(o.Slots)) {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(len(o.Slots)) || i > steady.Load() || ctx.Err() != nil {
					return
				}
				r := newReplay(l, o.Slots[i], int64(o.Program), int64(o.Evict))
				r.run()
				st.Rows[i] = r.row
				if !r.replaced && r.row.Blocked == 0 {
					for old := steady.Load(); i < old && !steady.CompareAndSwap(old, i); old = steady.Load() {
					}
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for i := range st.Rows {
		if s := steady.Load(); int64(i) > s {
			st.Rows[i] = st.Rows[s]
			st.Rows[i].Slots = o.Slots[i]
		}
	}
	st.Enough = slices.IndexFunc(st.Rows, func(r Row) bool {
		return r.Blocked == 0 && float64(r.Hits) >= o.HitRate*float64(l.facts.Possible)
	})
	return st, nil
}

// finish sums up. waits is put out of order.
func (r *Row) finish(l *Load, last int64, waits []int64, program, evict int64) {
	r.Hits = l.facts.Requests - r.Programs
	r.Programming = time.Duration(int64(r.Programs)*program + int64(r.Evicted)*evict)
	r.Added = time.Duration(last - l.items[0].start - l.facts.Span)
	if len(waits) == 0 {
		return
	}
	for _, w := range waits {
		r.Waited += time.Duration(w)
		r.MaxWait = max(r.MaxWait, time.Duration(w))
	}
	r.P50, r.P99 = time.Duration(rank(waits, 50)), time.Duration(rank(waits, 99))
}

// rank returns the smallest of all that so many percent of them do not exceed. It puts
// them into another order.
func rank(all []int64, percent int) int64 {
	n := (len(all)*percent + 99) / 100 // from 1
	lo, hi := 0, len(all)
	for hi-lo > 1 {
		// Three parts, below, equal and above the middle one, until n falls into the equal.
		pivot := all[lo+(hi-lo)/2]
		lt, gt := lo, hi
		for i := lo; i < gt; {
			switch v := all[i]; {
			case v < pivot:
				all[i], all[lt] = all[lt], v
				lt++
				i++
			case v > pivot:
				gt--
				all[i], all[gt] = all[gt], v
			default:
				i++
			}
		}
		switch {
		case n-1 < lt:
			hi = lt
		case n-1 >= gt:
			lo = gt
		default:
			return pivot
		}
	}
	return all[lo]
}
