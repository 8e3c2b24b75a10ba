package target

import (
	"context"
	"sync"
	"sync/atomic"
)

// regions says for each region of a mirror which legs have its data, and keeps
// writes and copies of one region apart.
//
// A region is in sync if all legs have it. The source is a leg that has every
// region: the first at the beginning, and another only once that has failed.
// With a disk log that is always so, since the log can name only one.
type regions struct {
	size, n  int64 // bytes in one, and how many
	all      legSet
	complete atomic.Bool // all are in sync

	mu     sync.Mutex       // guards what follows
	synced []uint64         // a bit each
	count  int64            // of them
	have   map[int64]legSet // of those not in sync, if it is not only the source
	missed map[int64]bool   // of those, which a leg has missed a change of since the table was resumed: for the next time
	source int

	active []*activeWrite
	seq    uint64          // counts writes that begin, and that end
	dirty  map[int64]dirty // written to, and not known to be durable, or to the log as clean

	copying int64         // the region that is being copied, -1: none
	copied  chan struct{} // closed when it no longer is
	idle    chan struct{} // closed when the copy has the region to itself; nil: it has, or nobody waits
}

// An activeWrite is a change under way.
type activeWrite struct {
	off, end    int64         // bytes
	first, last int64         // regions
	done        chan struct{} // closed at its end; made by who waits for that
}

// dirty says what became of a region that was written to.
type dirty struct {
	seq     uint64 // when a write of it last began or ended
	durable bool   // on all legs that have it
}

func (g *regions) init(n int64, legs int, synced bool) {
	g.n, g.all, g.copying = n, legSet(1)<<legs-1, -1
	g.synced, g.have, g.missed, g.dirty = make([]uint64, (n+63)/64), map[int64]legSet{}, map[int64]bool{}, map[int64]dirty{}
	if synced {
		g.assume(0, func(int64) bool { return true })
	}
}

// assume makes those regions in sync for which is returns true, and source the leg
// that has the others.
func (g *regions) assume(source int, is func(i int64) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.synced)
	clear(g.have)
	g.count, g.source = 0, source
	g.complete.Store(false)
	for i := range g.n {
		if is(i) {
			g.set(i, g.all)
		}
	}
}

// span returns the first and the last region of a range, which is not empty.
func (g *regions) span(off, n int64) (first, last int64) {
	return off / g.size, (off + max(n, 1) - 1) / g.size
}

func (g *regions) isSynced(i int64) bool { return g.synced[i/64]>>(i%64)&1 != 0 }

// legsOf returns the legs that have region i; g.mu is held.
func (g *regions) legsOf(i int64) legSet {
	if g.isSynced(i) {
		return g.all
	}
	if s, known := g.have[i]; known {
		return s
	}
	return 1 << g.source
}

// set says that the legs of s, and no others, have region i; g.mu is held.
func (g *regions) set(i int64, s legSet) {
	was := g.isSynced(i)
	switch {
	case s == g.all && !was:
		g.synced[i/64] |= 1 << (i % 64)
		g.count++
		delete(g.have, i)
		delete(g.missed, i)
	case s != g.all && was:
		g.synced[i/64] &^= 1 << (i % 64)
		g.count--
		fallthrough
	case s != g.all:
		g.have[i] = s
	}
	g.complete.Store(g.count == g.n)
}

func (g *regions) inSync() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count
}

// common returns the legs that have all of the regions from first to last.
//
// Hot: no allocation, and no lock while all are in sync.
func (g *regions) common(first, last int64) legSet {
	if g.complete.Load() {
		return g.all
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.all
	for i := first; i <= last && s != 0; i++ {
		s &= g.legsOf(i)
	}
	return s
}

// run returns the legs that have region first, and the last region up to which
// all are on the same legs.
func (g *regions) run(first, last int64) (s legSet, end int64) {
	if g.complete.Load() {
		return g.all, last
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s = g.legsOf(first)
	for end = first; end < last && g.legsOf(end+1) == s; end++ {
	}
	return s, end
}

// enter begins a change of n bytes at off: it waits while one of its regions is
// being copied, or some of its bytes are being changed, since two changes may not
// come to the legs in different orders. It holds nothing while it waits. fresh
// reports whether a region was not dirty before.
func (g *regions) enter(ctx context.Context, off, n int64) (w *activeWrite, fresh bool, err error) {
	w = &activeWrite{off: off, end: off + n}
	w.first, w.last = g.span(off, n)
	g.mu.Lock()
	for {
		wait := g.inTheWay(w)
		if wait == nil {
			break
		}
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
		g.mu.Lock()
	}
	defer g.mu.Unlock()
	g.active = append(g.active, w)
	before := len(g.dirty)
	g.touch(w)
	return w, len(g.dirty) > before, nil
}

// inTheWay returns what to wait for before w may begin; g.mu is held.
func (g *regions) inTheWay(w *activeWrite) chan struct{} {
	if g.copying >= w.first && g.copying <= w.last {
		return g.copied
	}
	for _, a := range g.active {
		if a.off < w.end && w.off < a.end {
			if a.done == nil {
				a.done = make(chan struct{})
			}
			return a.done
		}
	}
	return nil
}

// touch makes the regions of w dirty; g.mu is held.
func (g *regions) touch(w *activeWrite) {
	g.seq++
	for i := w.first; i <= w.last; i++ {
		g.dirty[i] = dirty{seq: g.seq}
	}
}

// leave ends what enter began.
func (g *regions) leave(w *activeWrite) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.touch(w)
	for i, a := range g.active {
		if a == w {
			last := len(g.active) - 1
			g.active[i], g.active[last] = g.active[last], nil
			g.active = g.active[:last]
			break
		}
	}
	if w.done != nil {
		close(w.done)
	}
	if g.idle != nil && !g.isActive(g.copying) {
		close(g.idle)
		g.idle = nil
	}
}

// isActive reports whether a change of region i is under way; g.mu is held.
func (g *regions) isActive(i int64) bool {
	for _, a := range g.active {
		if a.first <= i && i <= a.last {
			return true
		}
	}
	return false
}

// beginCopy keeps new writes out of region i, waits for those that are in it, and
// returns the legs that have it. One copy at a time.
func (g *regions) beginCopy(ctx context.Context, i int64) (legSet, error) {
	g.mu.Lock()
	g.copying, g.copied = i, make(chan struct{})
	var idle chan struct{}
	if g.isActive(i) {
		idle = make(chan struct{})
	}
	g.idle = idle
	g.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
			g.endCopy(i, 0)
			return 0, context.Cause(ctx)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.legsOf(i), nil
}

// endCopy lets writes in again; the legs of to have the region now too. It
// reports whether this was the last one that was not in sync.
func (g *regions) endCopy(i int64, to legSet) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if was := g.legsOf(i); to&^was != 0 {
		g.set(i, was|to)
		g.seq++
		g.dirty[i] = dirty{seq: g.seq}
		last = g.count == g.n
	}
	close(g.copied)
	g.copying, g.copied, g.idle = -1, nil, nil
	return last
}

// covered makes durable what no write has touched since seq was the number of
// writes; without a log it is then forgotten.
func (g *regions) covered(seq uint64, forget bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, d := range g.dirty {
		switch {
		case d.seq > seq || g.isActive(i):
		case forget:
			delete(g.dirty, i)
		default:
			g.dirty[i] = dirty{d.seq, true}
		}
	}
}

// now is the number of writes that have begun or ended.
func (g *regions) now() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seq
}

// needsFlush reports whether a region that nobody is writing to may be volatile.
func (g *regions) needsFlush() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, d := range g.dirty {
		if !d.durable && !g.isActive(i) {
			return true
		}
	}
	return false
}
