package slotstudy

// maxPassed is that of keyslot.Manager: how many hits pass the request that waits for a
// slot.
const maxPassed = 64

// taken is the refs of a slot that the engine works on.
const taken = -1

// A slot of an engine.
type slot struct {
	key, old int32 // the key in it, and the one that is just being replaced; -1: none
	refs     int32 // requests that hold it
	released uint64
}

// A waiter stands in the queue of an engine.
type waiter struct {
	item    int32
	arrived int64
	evict   bool
	waited  bool // it was not served at once
	blocked bool // all slots were in use when it came
	full    int  // how often they had been
}

// An engine has the state of a keyslot.Manager.
type engine struct {
	slots   []slot
	clock   uint64 // the tick of the last release
	queue   []waiter
	starved int32 // the item that waits for a slot while the engine has nothing to do; -1: none
	passed  int   // hits served past it
	full    int   // how often requests turned out to use all slots

	calling bool // the engine programs or evicts
	called  call

	waitedFor bool // somebody may wait whose key is in a slot
	leavings  int  // evictions under way
}

// A call is what the engine does.
type call struct {
	item  int32
	slot  int32
	evict bool
}

// get is Manager.Get of item i, which came at now.
func (r *replay) get(e *engine, i int32) {
	k := r.l.items[i].key
	if s := r.hit(e, k, e.starved >= 0); s >= 0 {
		r.begin(i)
		return
	}
	r.await(e, waiter{item: i, arrived: r.now})
}

// await puts w into the queue, if it cannot be served at once. For those who are there
// already nothing has changed since the last pump.
func (r *replay) await(e *engine, w waiter) {
	if e.calling && e.starved >= 0 {
		r.pump(e) // an eviction has taken the engine: nobody is starved any more
	}
	if r.serve(e, &w, e.starved >= 0) {
		return
	}
	if !w.evict {
		w.waited = true
		r.row.Waits++
		w.blocked, w.full = e.starved >= 0, e.full
		if e.starved < 0 && r.starves(e, &w) {
			e.starved, e.passed = w.item, 0
			e.full++
		}
		r.waiting[r.l.items[w.item].key]++
	}
	e.queue = append(e.queue, w)
}

// starves reports whether w, which cannot be served, waits for a slot and for nothing
// else.
func (r *replay) starves(e *engine, w *waiter) bool {
	return !w.evict && !e.calling && r.leaving[r.l.items[w.item].key] == 0
}

// put is Slot.Put of a request with key k, whose slot still has it.
func (r *replay) put(e *engine, k int32) {
	s := &e.slots[r.slotOf[k]]
	if s.released != e.clock {
		e.clock++
		s.released = e.clock
	}
	if s.refs--; s.refs == 0 && len(e.queue) > 0 && (!e.calling || e.starved >= 0) {
		r.pump(e)
	}
}

// hit returns the slot of k with a new reference, -1 if there is none or if too many
// have passed the starved waiter.
func (r *replay) hit(e *engine, k int32, starved bool) int32 {
	s := r.slotOf[k]
	if s < 0 {
		return -1
	}
	if r.leaving[k] > 0 || starved && e.passed >= maxPassed {
		e.waitedFor = true
		return -1
	}
	if starved {
		e.passed++
	}
	e.slots[s].refs++
	return s
}

// pump serves the queue as far as it can be.
func (r *replay) pump(e *engine) {
	starved, all := false, e.waitedFor || e.leavings > 0
	e.waitedFor = false
	left := e.queue[:0]
	for i := range e.queue {
		w := &e.queue[i]
		if (e.calling || starved) && !all {
			// Nobody's key is in a slot, and nothing else can be had.
			left = append(left, e.queue[i:]...)
			break
		}
		if r.serve(e, w, starved) {
			continue
		}
		left = append(left, *w)
		if !starved && r.starves(e, w) {
			starved = true
			e.full++
			if e.starved != w.item {
				e.starved, e.passed = w.item, 0
			}
		}
	}
	e.queue = left
	if !starved {
		e.starved, e.passed = -1, 0
	}
}

func (r *replay) serve(e *engine, w *waiter, starved bool) bool {
	k := r.l.items[w.item].key
	if w.evict {
		return r.serveEvict(e, w, k)
	}
	if r.hit(e, k, starved) >= 0 {
		r.granted(e, w)
		r.begin(w.item)
		return true
	}
	if r.leaving[k] > 0 {
		return false
	}
	if starved || e.calling || r.slotOf[k] >= 0 {
		return false
	}
	n := e.victim()
	if n < 0 {
		return false
	}
	s := &e.slots[n]
	if s.key >= 0 {
		r.slotOf[s.key] = -1
		r.replaced = true
	}
	s.old, s.key, s.refs = s.key, k, taken
	r.granted(e, w)
	r.work(e, call{item: w.item, slot: n}, r.program)
	return true
}

// serveEvict is the wantSlot of a Manager.
func (r *replay) serveEvict(e *engine, w *waiter, k int32) bool {
	n := e.holding(k)
	if n < 0 {
		r.ending = append(r.ending, w.item)
		return true
	}
	if e.calling || e.slots[n].refs != 0 {
		return false
	}
	e.slots[n].refs = taken
	r.slotOf[k] = -1
	r.work(e, call{item: w.item, slot: n, evict: true}, r.evict)
	return true
}

// victim returns the idle slot that was released longest ago, an empty one before all
// others, or -1.
func (e *engine) victim() int32 {
	best := int32(-1)
	for i := range e.slots {
		s := &e.slots[i]
		if s.refs != 0 {
			continue
		}
		if best < 0 {
			best = int32(i)
			continue
		}
		b := &e.slots[best]
		if (s.key < 0) != (b.key < 0) {
			if s.key < 0 {
				best = int32(i)
			}
		} else if s.released < b.released {
			best = int32(i)
		}
	}
	return best
}

// holding returns the slot in which something of k is, -1 if there is none.
func (e *engine) holding(k int32) int32 {
	for i := range e.slots {
		if s := &e.slots[i]; s.key == k || s.old == k {
			return int32(i)
		}
	}
	return -1
}

// worked ends what the engine does.
func (r *replay) worked(e *engine) {
	c := e.called
	s := &e.slots[c.slot]
	if c.evict {
		s.key, s.refs = -1, 0
		e.calling = false
		r.row.Evicted++
		r.pump(e)
		r.ending = append(r.ending, c.item)
		return
	}
	s.old, s.refs = -1, 1
	r.slotOf[s.key] = c.slot
	e.calling = false
	r.row.Programs++
	e.waitedFor = e.waitedFor || r.waiting[s.key] > 0
	r.pump(e)
	r.begin(c.item)
}

// leave begins the eviction that item i is.
func (r *replay) leave(e *engine, i int32) {
	k := r.l.items[i].key
	if e.holding(k) < 0 {
		r.finished(i)
		return
	}
	r.leaving[k]++
	e.leavings++
	r.pump(e)
	r.await(e, waiter{item: i, arrived: r.now, evict: true})
}

// evicted ends the evictions that are over: requests for their keys go on.
func (r *replay) evicted() {
	for len(r.ending) > 0 {
		i := r.ending[0]
		r.ending = r.ending[1:]
		k := r.l.items[i].key
		r.leaving[k]--
		e := &r.engines[r.l.engine[k]]
		e.leavings--
		r.pump(e)
		r.finished(i)
	}
}
