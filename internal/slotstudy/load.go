// Package slotstudy tells how many keyslots a workload needs: it replays a trace of
// requests against engines with so many slots and counts how often a key was in a slot,
// who had to wait, and what programming cost.
//
// The engines of the replay do what keyslot.Manager does, step by step, on a clock of
// their own: the least recently released slot goes first, requests and evictions wait in
// one queue, a bounded number of hits passes it, the engine does one thing at a time. A
// test holds them against the manager request for request. What differs is how long a
// slot is held: here from the start of a request to its end, as hardware that encrypts
// on the way to the medium does; Keyway's own engines hold one only while they encrypt.
//
// The replay is a closed loop. A request begins as long after the one that had ended
// last before it as it did when the trace was made: who waits for a slot sends his next
// request later. So there are never many more requests under way than there were, waits
// do not pile up without end where slots are too few, and with slots to spare and
// programming that takes no time everything happens when it did. The times of the trace
// alone (an open loop) would send requests whose cause had not happened yet.
package slotstudy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"keyway/internal/trace"
)

// MaxEvents bounds the requests and evictions of a load: each takes some 100 bytes.
const MaxEvents = 1 << 24

// A Load is a trace, made ready to be replayed.
type Load struct {
	items   []item  // in order of their starts
	follows []int32 // the first item that begins after this one's end; -1: none
	engine  []int32 // of each key
	base    []int32 // of each key: its first age
	ages    []int32 // how many requests there are of each
	engines int
	facts   Facts
}

// An item is a request or an eviction.
type item struct {
	start, end int64 // nanoseconds
	key        int32 // index of a key in an engine; -1: a request that needs no slot
	age        int32 // how many evictions of the key come before
	evict      bool
	chained    bool // begins after the same end as the item before it
}

// Facts are what a load says of itself.
type Facts struct {
	Requests  int // that need a keyslot
	Plain     int // that need none
	Evictions int
	Keys      int   // as often as engines see them
	Engines   int   // that are used
	Peak      int   // keys that requests of one engine use at the same time, at most
	Possible  int   // hits with as many slots as there are keys
	Span      int64 // nanoseconds from the first start to the last end of a request
	Truncated bool
}

// Read reads a trace. Of the engines only those are taken whose name keep, if it is not
// nil, takes.
func Read(src io.Reader, keep func(name string) bool) (*Load, *trace.Info, error) {
	l := &Load{}
	type place struct{ engine, key int }
	keys, engines := map[place]int32{}, map[int]int32{}
	var files []int // engine of the file, by engine here
	info, err := trace.Read(src, func(e *trace.Event) error {
		if len(l.items) == MaxEvents {
			return fmt.Errorf("there are more than %d requests and evictions: cut the trace (a part of its lines, with those of the keys and engines, is a trace)", MaxEvents)
		}
		it := item{start: e.Start, end: e.End, key: -1, evict: e.Evict}
		if e.Key >= 0 {
			n, ok := engines[e.Engine]
			if !ok {
				n = int32(len(files))
				engines[e.Engine] = n
				files = append(files, e.Engine)
			}
			p := place{e.Engine, e.Key}
			if it.key, ok = keys[p]; !ok {
				it.key = int32(len(l.engine))
				keys[p] = it.key
				l.engine = append(l.engine, n)
			}
		}
		l.items = append(l.items, it)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	l.engines = len(files)
	if keep != nil {
		l.only(func(engine int32) bool { return keep(info.Engines[files[engine]].Name) })
	}
	l.facts.Truncated = info.Truncated
	l.prepare()
	if l.facts.Requests == 0 {
		return nil, info, ErrNothing
	}
	return l, info, nil
}

// ErrNothing says that a trace has no request that needs a keyslot.
var ErrNothing = errors.New("no request in it needs a keyslot")

// only drops what belongs to other engines, and what belongs to none.
func (l *Load) only(keep func(engine int32) bool) {
	l.items = slices.DeleteFunc(l.items, func(it item) bool { return it.key < 0 || !keep(l.engine[it.key]) })
}

// Facts returns what the load says of itself.
func (l *Load) Facts() Facts { return l.facts }

// prepare puts the items in order, and finds what each begins after.
func (l *Load) prepare() {
	slices.SortStableFunc(l.items, func(a, b item) int { return cmp.Compare(a.start, b.start) })
	byEnd := make([]int32, len(l.items))
	for i := range byEnd {
		byEnd[i] = int32(i)
	}
	slices.SortFunc(byEnd, func(a, b int32) int {
		return cmp.Or(cmp.Compare(l.items[a].end, l.items[b].end), cmp.Compare(a, b))
	})
	l.follows = make([]int32, len(l.items))
	for i := range l.follows {
		l.follows[i] = -1
	}
	ended, before := 0, int32(-1)
	for i := range l.items {
		// An item that takes no time may end when this one begins and yet stand
		// behind it.
		for ended < len(byEnd) && l.items[byEnd[ended]].end <= l.items[i].start && int(byEnd[ended]) < i {
			ended++
		}
		after := int32(-1)
		if ended > 0 {
			after = byEnd[ended-1]
		}
		if after == before && i > 0 {
			l.items[i].chained = true
		} else if after >= 0 {
			l.follows[after] = int32(i)
		}
		before = after
	}
	l.count(byEnd)
}

// count finds the facts, and what evictions wait for.
func (l *Load) count(byEnd []int32) {
	f := &l.facts
	if len(l.items) == 0 {
		return
	}
	for _, i := range byEnd {
		if it := &l.items[i]; !it.evict {
			f.Span = it.end - l.items[0].start
		}
	}
	seen, resident := make([]int32, len(l.engine)), make([]bool, len(l.engine))
	using, busy := make([]int32, len(l.engine)), make([]int, l.engines)
	used := map[int32]bool{}
	age := make([]int32, len(l.engine))
	ended := 0
	for i := range l.items {
		it := &l.items[i]
		for ; l.items[byEnd[ended]].end <= it.start && int(byEnd[ended]) < i; ended++ {
			if e := &l.items[byEnd[ended]]; e.key >= 0 && !e.evict {
				if using[e.key]--; using[e.key] == 0 {
					busy[l.engine[e.key]]--
				}
			}
		}
		switch k := it.key; {
		case k < 0:
			f.Plain++
		case it.evict:
			f.Evictions++
			it.age = age[k]
			age[k]++
			resident[k] = false
		default:
			f.Requests++
			it.age = age[k]
			used[l.engine[k]] = true
			if seen[k]++; seen[k] == 1 {
				f.Keys++
			}
			if resident[k] {
				f.Possible++
			}
			resident[k] = true
			if using[k]++; using[k] == 1 {
				busy[l.engine[k]]++
			}
			f.Peak = max(f.Peak, busy[l.engine[k]])
		}
	}
	f.Engines = len(used)
	l.base = make([]int32, len(l.engine))
	n := int32(0)
	for k := range l.base {
		l.base[k] = n
		n += age[k] + 1
	}
	l.ages = make([]int32, n)
	for _, it := range l.items {
		if it.key >= 0 && !it.evict {
			l.ages[l.base[it.key]+it.age]++
		}
	}
}
