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
	graph.mu.Lock()
	open := m.holders()
	if m.removed {
		graph.mu.Unlock()
		return fmt.Errorf("device %q: %w", m.Name(), ErrRemoved)
	}
	m.deferred = o.Deferred && len(open) > 0
	deferred := m.deferred
	graph.mu.Unlock()
	switch {
	case deferred:
		return nil
	case len(open) > 0:
		return fmt.Errorf("device %q: %w by %s", m.Name(), block.ErrBusy, strings.Join(open, ", "))
	}
	return m.teardown(ctx)
}

// CancelDeferred takes back a deferred removal that has not happened yet.
func (m *Mapped) CancelDeferred() {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	m.deferred = false
}

// removeDeferred removes m after its last close, unless somebody opened it
// again or cancelled.
func (m *Mapped) removeDeferred() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := m.lock(ctx)
	if err == nil {
		defer m.unlock()
		graph.mu.Lock()
		still := m.deferred && !m.removed && len(m.handles) == 0
		graph.mu.Unlock()
		if still {
			err = m.teardown(ctx)
		}
	}
	if err != nil && m.o.Warn != nil {
		m.o.Warn(m, fmt.Errorf("deferred removal: %w", err))
	}
}

// teardown ends the device. The caller has the token, and nobody has it open.
func (m *Mapped) teardown(ctx context.Context) error {
	graph.mu.Lock()
	if open := m.holders(); len(open) > 0 {
		graph.mu.Unlock()
		return fmt.Errorf("device %q: %w by %s", m.Name(), block.ErrBusy, strings.Join(open, ", "))
	}
	m.removed = true // no new handles
	graph.mu.Unlock()
	point.At("dm: removing")
	if err := m.drain(ctx); err != nil {
		graph.mu.Lock()
		m.removed = false
		graph.mu.Unlock()
		return fmt.Errorf("removal of %q: %s: %w", m.Name(), m.holdup(), err)
	}
	graph.mu.Lock()
	inactive := m.inactive
	m.inactive = nil
	live := m.giveUp(m.live.Swap(nil))
	graph.mu.Unlock()
	m.admit() // those who waited find no table
	m.discard(inactive)
	m.retire(live)
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
