package block

import (
	"context"
	"sync"
)

// A rangeLock locks ranges of bytes. A range waits for those it overlaps that
// came before it, holders and waiters alike, so that nobody starves.
type rangeLock struct {
	mu    sync.Mutex // guards what follows
	first *heldRange // in order of arrival
	last  *heldRange
	free  *heldRange // linked by next
}

// A heldRange is one range, held or waited for.
type heldRange struct {
	off, end   int64
	prev, next *heldRange
	ready      chan struct{} // one token when a waiter gets its range
	waits      bool
}

// lock returns when the caller alone has [off, end). It fails with the cause
// of ctx when that ends first, with ErrWouldBlock rather than wait if nowait.
//
// Hot: no allocation in steady state.
func (l *rangeLock) lock(ctx context.Context, off, end int64, nowait bool) (*heldRange, error) {
	l.mu.Lock()
	h := l.free
	if h != nil {
		l.free = h.next
	} else {
		h = &heldRange{ready: make(chan struct{}, 1)}
	}
	h.off, h.end, h.prev, h.next = off, end, l.last, nil
	if h.prev != nil {
		h.prev.next = h
	} else {
		l.first = h
	}
	l.last = h
	h.waits = h.blocked()
	if !h.waits {
		l.mu.Unlock()
		return h, nil
	}
	if nowait {
		l.remove(h)
		l.mu.Unlock()
		return nil, ErrWouldBlock
	}
	l.mu.Unlock()

	select {
	case <-h.ready:
		return h, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !h.waits {
		<-h.ready // it came at the same moment
	}
	l.remove(h)
	l.grant()
	return nil, context.Cause(ctx)
}

func (l *rangeLock) unlock(h *heldRange) {
	l.mu.Lock()
	l.remove(h)
	l.grant()
	l.mu.Unlock()
}

// blocked reports whether a range that came before h overlaps it.
func (h *heldRange) blocked() bool {
	for o := h.prev; o != nil; o = o.prev {
		if o.off < h.end && h.off < o.end {
			return true
		}
	}
	return false
}

// grant wakes the waiters that nothing blocks any more.
func (l *rangeLock) grant() {
	for h := l.first; h != nil; h = h.next {
		if h.waits && !h.blocked() {
			h.waits = false
			h.ready <- struct{}{}
		}
	}
}

func (l *rangeLock) remove(h *heldRange) {
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		l.first = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		l.last = h.prev
	}
	h.prev, h.next = nil, l.free
	l.free = h
}
