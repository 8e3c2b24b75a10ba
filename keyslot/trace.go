package keyslot

import (
	"keyway/blkcrypto"
	"keyway/block"
)

// A Tracer is told what the keyslots of a manager are used for. Its methods are called
// by those who carry requests, many at once, and take as little time as they can; they
// must not call the manager.
type Tracer interface {
	// Now is the time of the trace in nanoseconds. It never goes back.
	Now() int64

	// Request tells of a request that has ended.
	Request(Traced)

	// Evicted tells that k is in no slot of the manager any more, after an eviction
	// that was asked for at start and was over at end.
	Evicted(k *blkcrypto.Key, start, end int64)
}

// Traced is a request with a context that an engine, or the fallback, has served. One
// that was answered with block.ErrWouldBlock is none: it comes again.
type Traced struct {
	Op         block.Op
	Failed     bool
	Crypt      blkcrypto.Context
	Off, Len   int64 // bytes on the device in front of which the engine is
	Start, End int64 // times of the Tracer: from the moment it came to that of its answer
}

// Trace has t told of every request through Over and Fallback, and of every eviction,
// from then on; nil ends that. Requests under way at that moment are told or not.
func (m *Manager) Trace(t Tracer) {
	if t == nil {
		m.tracer.Store(nil)
		return
	}
	m.tracer.Store(&t)
}

// began returns who traces m, nil if nobody does, and what the time is for him.
//
// Hot: no allocation.
func (m *Manager) began() (t *Tracer, start int64) {
	if t = m.tracer.Load(); t != nil {
		start = (*t).Now()
	}
	return t, start
}
