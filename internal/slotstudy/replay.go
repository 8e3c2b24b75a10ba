package slotstudy

import "slices"

// A replay runs a load with one number of slots.
type replay struct {
	l              *Load
	program, evict int64 // what they take, in nanoseconds

	now     int64
	events  heap
	engines []engine

	// By key.
	slotOf  []int32           // -1: in none
	leaving []int32           // evictions under way
	waiting []int32           // requests
	pending map[int32][]int32 // evictions that wait for requests which came before them

	left   []int32 // requests that have not ended, of each age
	oldest []int32 // age of each key before which all have ended

	ending   []int32 // evictions that have just succeeded
	last     int64   // when the last request so far ended
	replaced bool    // a key had to go for another
	waits    []int64 // of those who waited
	row      Row

	observe func(i int32, began int64) // for tests; nil: nobody
}

// The kinds of things that happen, in the order in which those of one moment do: what
// begins when another ends finds its slot released.
const (
	ends = iota
	works
	arrives
)

func newReplay(l *Load, slots int, program, evict int64) *replay {
	r := &replay{
		l: l, program: program, evict: evict, engines: make([]engine, l.engines),
		slotOf: make([]int32, len(l.engine)), leaving: make([]int32, len(l.engine)), waiting: make([]int32, len(l.engine)), left: slices.Clone(l.ages), oldest: make([]int32, len(l.engine)),
		pending: map[int32][]int32{},
	}
	for i := range r.slotOf {
		r.slotOf[i] = -1
	}
	for i := range r.engines {
		e := &r.engines[i]
		e.slots, e.clock, e.starved = make([]slot, slots), 1, -1
		for j := range e.slots {
			e.slots[j].key, e.slots[j].old = -1, -1
		}
	}
	r.row = Row{Slots: slots}
	return r
}

// run runs it to the end.
func (r *replay) run() {
	items := r.l.items
	if len(items) == 0 {
		return
	}
	r.events.push(items[0].start, arrives, 0)
	for len(r.events) > 0 {
		t, kind, i := r.events.pop()
		r.now = t
		switch kind {
		case ends:
			if k := items[i].key; k >= 0 {
				r.put(&r.engines[r.l.engine[k]], k)
			}
			r.finished(i)
		case works:
			r.worked(&r.engines[i])
		case arrives:
			if next := i + 1; int(next) < len(items) && items[next].chained {
				r.events.push(t+items[next].start-items[i].start, arrives, next)
			}
			r.arrived(i)
		}
		if len(r.ending) > 0 {
			r.evicted()
		}
	}
	r.row.finish(r.l, r.last, r.waits, r.program, r.evict)
}

func (r *replay) arrived(i int32) {
	it := &r.l.items[i]
	switch {
	case it.key < 0:
		r.begin(i)
	case it.evict:
		if !r.drained(it) {
			r.pending[it.key] = append(r.pending[it.key], i)
			return
		}
		r.leave(&r.engines[r.l.engine[it.key]], i)
	default:
		r.get(&r.engines[r.l.engine[it.key]], i)
	}
}

// begin is the moment at which an item has all it needs.
func (r *replay) begin(i int32) {
	it := &r.l.items[i]
	if r.observe != nil {
		r.observe(i, r.now)
	}
	r.events.push(r.now+it.end-it.start, ends, i)
}

// finished lets begin what begins after i.
func (r *replay) finished(i int32) {
	it := &r.l.items[i]
	if f := r.l.follows[i]; f >= 0 {
		r.events.push(r.now+r.l.items[f].start-it.end, arrives, f)
	}
	if it.evict {
		return
	}
	r.last = r.now
	if it.key < 0 {
		return
	}
	g := r.l.base[it.key] + it.age
	if r.left[g]--; r.left[g] > 0 || len(r.pending) == 0 {
		return
	}
	p := r.pending[it.key]
	waiting := slices.DeleteFunc(slices.Clone(p), func(i int32) bool { return r.drained(&r.l.items[i]) })
	if len(waiting) == 0 {
		delete(r.pending, it.key)
	} else {
		r.pending[it.key] = waiting
	}
	for _, i := range p {
		if !slices.Contains(waiting, i) {
			r.leave(&r.engines[r.l.engine[it.key]], i)
		}
	}
}

// drained reports whether all requests that came before an eviction have ended, as
// Key.Evict waits for.
func (r *replay) drained(e *item) bool {
	age := &r.oldest[e.key]
	for *age <= e.age && r.left[r.l.base[e.key]+*age] == 0 {
		*age++
	}
	return *age > e.age
}

func (r *replay) granted(e *engine, w *waiter) {
	if !w.waited {
		return
	}
	r.waiting[r.l.items[w.item].key]--
	r.waits = append(r.waits, r.now-w.arrived)
	if w.blocked || w.full != e.full {
		r.row.Blocked++
	}
}

// work has the engine of a call busy for so long.
func (r *replay) work(e *engine, c call, delay int64) {
	e.calling, e.called = true, c
	r.events.push(r.now+delay, works, r.l.engine[r.l.items[c.item].key])
}

// A heap has what will happen, the next first.
type heap []happening

type happening struct {
	t    int64
	what uint64 // kind and index
}

func (a happening) before(b happening) bool { return a.t < b.t || a.t == b.t && a.what < b.what }

func (h *heap) push(t int64, kind uint64, i int32) {
	x := happening{t, kind<<32 | uint64(uint32(i))}
	*h = append(*h, x)
	s := *h
	at := len(s) - 1
	for at > 0 {
		up := (at - 1) / 2
		if !x.before(s[up]) {
			break
		}
		s[at] = s[up]
		at = up
	}
	s[at] = x
}

func (h *heap) pop() (t int64, kind uint64, i int32) {
	s := *h
	top := s[0]
	x := s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	at := 0
	for {
		down := 2*at + 1
		if down >= len(s) {
			break
		}
		if down+1 < len(s) && s[down+1].before(s[down]) {
			down++
		}
		if !s[down].before(x) {
			break
		}
		s[at] = s[down]
		at = down
	}
	if len(s) > 0 {
		s[at] = x
	}
	return top.t, top.what >> 32, int32(uint32(top.what))
}
