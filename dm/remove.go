package dm

import (
	"context"
	"fmt"
	"strings"

	"keyway/block"
	"keyway/internal/point"
)

// RemoveOptions change how a device is removed.
type RemoveOptions struct {
	Deferred bool // of a device that is open: remove it at the last close
}

// Remove takes the device away: its tables are closed, requests that a
// suspension held fail with block.ErrClosed, and so do all later ones. A
// device that is open is refused with block.ErrBusy, by the names of its
// holders.
func (m *Mapped) Remove(ctx context.Context, o RemoveOptions) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	if begun, err := m.beginRemoval(o.Deferred); !begun {
		return err
	}
	return m.teardown(ctx)
}

// beginRemoval decides whether m is removed now, and if so nobody opens it any more;
// or at its last close, if later is set and it is open. The caller has the token.
func (m *Mapped) beginRemoval(later bool) (begun bool, err error) {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	switch open := m.holders(); {
	case m.removed:
		return false, fmt.Errorf("device %q: %w", m.name, ErrRemoved)
	case len(open) == 0:
		m.removed = true
		return true, nil
	case later:
		m.deferred = true
		return false, nil
	default: // one that was put off before remains so
		return false, fmt.Errorf("device %q: %w by %s", m.name, block.ErrBusy, strings.Join(open, ", "))
	}
}

// CancelDeferred takes back a deferred removal, unless it has begun: then it
// returns ErrRemoved (dm-fscrypt.md, invariant 33).
func (m *Mapped) CancelDeferred() error {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	if m.removed {
		return fmt.Errorf("device %q: %w", m.name, ErrRemoved)
	}
	m.deferred = false
	return nil
}

// removeDeferred removes m after its last close, unless somebody opened it
// again or cancelled.
func (m *Mapped) removeDeferred() {
	point.At("dm: last close")
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := m.lock(ctx)
	if err == nil {
		defer m.unlock()
		graph.mu.Lock()
		begun := m.deferred && !m.removed && len(m.handles) == 0
		m.removed = m.removed || begun // in the section that looked: a cancellation comes before or too late
		graph.mu.Unlock()
		if begun {
			err = m.teardown(ctx)
		}
	}
	if err != nil && m.o.Warn != nil {
		m.o.Warn(m, fmt.Errorf("deferred removal: %w", err))
	}
}

// teardown ends the device, whose removal has begun. The caller has the token.
func (m *Mapped) teardown(ctx context.Context) error {
	point.At("dm: removing")
	if err := m.drain(ctx); err != nil {
		graph.mu.Lock()
		m.removed = false
		graph.mu.Unlock()
		return fmt.Errorf("removal of %q: %w", m.Name(), err)
	}
	graph.mu.Lock()
	inactive := m.inactive
	m.inactive = nil
	live := m.giveUp(m.live.Swap(nil))
	graph.mu.Unlock()
	m.admit() // those who waited find no table
	m.retire(live)
	m.discard(inactive) // second: a key that both have started goes with the last
	m.events.raise(Event{Kind: EventRemoved})
	if m.o.Gone != nil {
		m.o.Gone(m)
	}
	return nil
}

// Rename changes the name. The caller sees to it that names are unique.
func (m *Mapped) Rename(name string) {
	graph.mu.Lock()
	m.name = name
	graph.mu.Unlock()
	m.events.rename(name)
}
