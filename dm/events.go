package dm

import (
	"context"
	"sync"
)

// events counts what happened to a device: a table went live, the profile
// changed, it was renamed or removed, a target reported something.
type events struct {
	mu      sync.Mutex
	n       uint64
	changed chan struct{} // closed and replaced at each event
}

func (e *events) raise() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n++
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *events) number() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// Event is the number of events so far.
func (m *Mapped) Event() uint64 { return m.events.number() }

// Wait returns the number of events as soon as it differs from n, also if n
// is yet to come (dm-fscrypt.md, invariant 32).
func (m *Mapped) Wait(ctx context.Context, n uint64) (uint64, error) {
	for {
		m.events.mu.Lock()
		now, changed := m.events.n, m.events.changed
		m.events.mu.Unlock()
		if now != n {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, context.Cause(ctx)
		}
	}
}
