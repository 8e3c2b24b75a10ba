package dm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"keyway/block"
)

// graph guards what ties mapped devices together: names, handles, inactive
// tables and owners. It is one for the process because a cycle can close
// through any of them.
var graph struct{ mu sync.Mutex }

// A Handle is an open mapped device. Closing the last one carries out a
// deferred removal.
type Handle struct {
	*Mapped
	by     string                 // who opened it, for people
	table  *Table                 // or the table that did; guarded by graph.mu
	keys   atomic.Pointer[keySet] // where contexts that begin here are noted
	closed atomic.Bool
}

// Open returns a handle; by says who has it, for the error that a removal
// gets meanwhile.
func (m *Mapped) Open(by string) (*Handle, error) {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	if m.removed {
		return nil, fmt.Errorf("device %q: %w", m.name, ErrRemoved)
	}
	h := &Handle{Mapped: m, by: by}
	h.keys.Store(&m.entered)
	m.handles[h] = true
	return h, nil
}

// Do is the device's, until the handle is closed.
func (h *Handle) Do(ctx context.Context, r block.Request) error {
	if h.closed.Load() {
		return h.opError(&r, fmt.Errorf("%w: the handle has been given back", block.ErrClosed))
	}
	return h.enter(ctx, &r, h.keys.Load())
}

// Close gives the handle back. Closing it again does nothing.
func (h *Handle) Close() error {
	h.closed.Store(true)
	graph.mu.Lock()
	last := h.handles[h] && len(h.handles) == 1
	delete(h.handles, h)
	remove := last && h.deferred && !h.removed
	graph.mu.Unlock()
	if remove {
		h.removeDeferred()
	}
	return nil
}

// holders names who has the device open. Called with graph.mu held.
func (m *Mapped) holders() []string {
	var names []string
	for h := range m.handles {
		name := h.by
		if h.table != nil && h.table.owner != nil {
			name = fmt.Sprintf("device %q", h.table.owner.name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// adopt makes t a table of m and refuses a cycle, through live and inactive
// tables alike. Called with graph.mu held.
func (m *Mapped) adopt(t *Table) error {
	if path := t.pathTo(m, map[*Mapped]bool{}); path != nil {
		return fmt.Errorf("device %q would stand on itself: %v", m.name, append([]string{m.name}, path...))
	}
	t.owner = m
	for h := range t.handles {
		h.table = t
		h.keys.Store(&t.entered)
	}
	return nil
}

// pathTo returns the names on the way from t down to m, nil if there is none.
func (t *Table) pathTo(m *Mapped, seen map[*Mapped]bool) []string {
	for h := range t.handles {
		d := h.Mapped
		if d == m {
			return []string{d.name}
		}
		if seen[d] {
			continue
		}
		seen[d] = true
		for _, next := range []*Table{d.live.Load(), d.inactive, d.aside} {
			if next == nil {
				continue
			}
			if path := next.pathTo(m, seen); path != nil {
				return append([]string{d.name}, path...)
			}
		}
	}
	return nil
}

// DeviceName names a device for people.
func DeviceName(dev block.Device) string {
	switch d := dev.(type) {
	case *Handle:
		return fmt.Sprintf("device %q", d.Name())
	case fmt.Stringer:
		return d.String()
	}
	return fmt.Sprintf("%T", dev)
}
