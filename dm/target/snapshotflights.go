package target

import (
	"context"

	"keyway/block"
)

// flights are the requests of one kind that are under way, each with the bytes
// it touches, so that others can wait for those that were there before them.
// Whoever embeds it guards it.
type flights struct {
	first *flight
	free  *flight // linked by next
}

type flight struct {
	off, end   int64 // bytes
	prev, next *flight
	landed     chan struct{} // closed at the end; made by who waits
}

// A passage is a flight that somebody waits for.
type passage struct {
	off, end int64 // bytes
	landed   <-chan struct{}
}

// begin adds a flight.
//
// Hot: no allocation in steady state.
func (f *flights) begin(off, end int64) *flight {
	x := f.free
	if x != nil {
		f.free = x.next
	} else {
		x = new(flight)
	}
	x.off, x.end, x.prev, x.next = off, end, nil, f.first
	if f.first != nil {
		f.first.prev = x
	}
	f.first = x
	return x
}

// end takes a flight away, and wakes who waits for it.
func (f *flights) end(x *flight) {
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		f.first = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	}
	if x.landed != nil {
		close(x.landed)
		x.landed = nil
	}
	x.next = f.free
	f.free = x
}

// meets reports whether a flight touches one of the bytes.
func (f *flights) meets(off, end int64) bool {
	for x := f.first; x != nil; x = x.next {
		if x.off < end && off < x.end {
			return true
		}
	}
	return false
}

// over returns the flights that touch one of the bytes.
func (f *flights) over(off, end int64) (all []passage) {
	for x := f.first; x != nil; x = x.next {
		if x.off < end && off < x.end {
			if x.landed == nil {
				x.landed = make(chan struct{})
			}
			all = append(all, passage{x.off, x.end, x.landed})
		}
	}
	return all
}

// await returns when all of them have landed. With nowait it does not wait.
func await(ctx context.Context, all []passage, nowait bool) error {
	for _, p := range all {
		select {
		case <-p.landed:
			continue
		default:
		}
		if nowait {
			return block.ErrWouldBlock
		}
		select {
		case <-p.landed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// still returns those of all that have not landed.
func still(all []passage) []passage {
	var left []passage
	for _, p := range all {
		select {
		case <-p.landed:
		default:
			left = append(left, p)
		}
	}
	return left
}
