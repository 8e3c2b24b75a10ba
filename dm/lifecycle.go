package dm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyway/internal/point"
)

// closeTimeout bounds how long a replaced table may take to give back its
// keys and devices once nothing uses it; engines need milliseconds.
const closeTimeout = 30 * time.Second

// Load puts t into the inactive slot, in place of what is there. The live
// table is not touched and nothing about the device changes. The device owns
// t from then on; if Load fails, t is closed.
func (m *Mapped) Load(ctx context.Context, t *Table) error {
	if err := m.lock(ctx); err != nil {
		return errors.Join(err, t.Close(ctx))
	}
	defer m.unlock()
	old, err := m.stage(t)
	if err != nil {
		return errors.Join(err, t.Close(ctx))
	}
	m.events.raise(Event{Kind: EventLoaded, Detail: t.extent()})
	m.discard(old)
	return nil
}

// stage puts t into the inactive slot and returns what was there. The caller
// has the token.
func (m *Mapped) stage(t *Table) (old *Table, err error) {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	return m.put(t)
}

// put is stage with graph.mu held.
func (m *Mapped) put(t *Table) (old *Table, err error) {
	switch {
	case m.removed:
		return nil, fmt.Errorf("device %q: %w", m.name, ErrRemoved)
	case m.leaf && m.live.Load() != nil:
		return nil, fmt.Errorf("device %q %w", m.name, ErrLeaf)
	case m.o.Immutable && t != nil && m.live.Load() != nil:
		return nil, fmt.Errorf("device %q %w", m.name, ErrImmutable)
	}
	if t != nil {
		if err := m.adopt(t); err != nil {
			return nil, err
		}
		t.raiseTo(&m.events)
	}
	old, m.inactive = m.inactive, t
	return old, nil
}

// Clear empties the inactive slot.
func (m *Mapped) Clear(ctx context.Context) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	old, err := m.stage(nil)
	if err == nil && old != nil {
		m.events.raise(Event{Kind: EventCleared})
		m.discard(old)
	}
	return err
}

// discard closes a table that was never live, and that nothing uses any more. Its
// targets may have started keys, and so have kept them in engines beneath. What
// goes wrong there does not undo the change that replaced it.
func (m *Mapped) discard(t *Table) {
	point.At("dm: discarding")
	graph.mu.Lock()
	r := m.giveUp(t)
	graph.mu.Unlock()
	m.retire(r)
}

// SuspendOptions change how a device is suspended.
type SuspendOptions struct {
	NoFlush bool // do not make completed writes durable
	Revoke  bool // Reload: evict the wrapped keys that the new table cannot serve
}

// Suspend stops admitting requests and returns when none is under way below
// the device; those that come wait until Resume. If ctx ends first, the
// device runs on as before and the error names what holds it up. Suspending a
// suspended device does nothing.
func (m *Mapped) Suspend(ctx context.Context, o SuspendOptions) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	defer m.noteSuspension(m.suspended.Load())
	return m.suspend(ctx, o)
}

func (m *Mapped) suspend(ctx context.Context, o SuspendOptions) error {
	if m.isRemoved() {
		return fmt.Errorf("device %q: %w", m.Name(), ErrRemoved)
	}
	if m.suspended.Load() {
		return nil
	}
	if err := m.drain(ctx); err != nil {
		return fmt.Errorf("suspend of %q: %w", m.Name(), err)
	}
	if t := m.live.Load(); t != nil && !o.NoFlush && !t.readOnly {
		if err := t.sync(ctx); err != nil {
			t.unpause()
			m.gate.Open()
			return fmt.Errorf("suspend of %q: flush: %w", m.Name(), err)
		}
	}
	m.suspended.Store(true)
	point.At("dm: suspended")
	return nil
}

// Resume moves the inactive table, if there is one, to the live slot and
// admits requests again, those that waited first. With an inactive table it
// suspends an active device for the purpose. If the table no longer fits what
// lies beneath it, or the suspension does not succeed, everything is as
// before: the old table live, the new one inactive, the device suspended or
// not as it was. The replaced table is closed before Resume returns.
func (m *Mapped) Resume(ctx context.Context) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	defer m.noteSuspension(m.suspended.Load())
	return m.resume(ctx, SuspendOptions{})
}

func (m *Mapped) resume(ctx context.Context, o SuspendOptions) error {
	graph.mu.Lock()
	next, removed := m.inactive, m.removed
	graph.mu.Unlock()
	switch {
	case removed:
		return fmt.Errorf("device %q: %w", m.Name(), ErrRemoved)
	case next == nil && m.live.Load() == nil:
		return fmt.Errorf("resume of %q: %w", m.Name(), ErrNoTable)
	case next == nil:
		if err := m.live.Load().ready(); err != nil {
			return fmt.Errorf("resume of %q refused: %w", m.Name(), err)
		}
		m.admit()
		return nil
	}
	if err := next.recheck(); err != nil {
		return fmt.Errorf("resume of %q: %w", m.Name(), err)
	}
	point.At("dm: rechecked")
	was := m.suspended.Load()
	if err := m.suspend(ctx, o); err != nil {
		return err
	}
	old, err := m.swap(ctx, next, o.Revoke)
	if err != nil {
		if !was {
			m.admit()
		}
		return fmt.Errorf("resume of %q refused: %w", m.Name(), err)
	}
	m.events.raise(Event{Kind: EventReloaded, Detail: next.extent()})
	m.admit()
	m.retire(old)
	return nil
}

func (m *Mapped) admit() {
	m.suspended.Store(false)
	if t := m.live.Load(); t != nil {
		t.unpause()
	}
	m.gate.Open()
}

// Reload is Load, Suspend and Resume as one step: it ends with t live, or
// with everything as it was before and t closed.
func (m *Mapped) Reload(ctx context.Context, t *Table, o SuspendOptions) error {
	if err := m.lock(ctx); err != nil {
		return errors.Join(err, t.Close(ctx))
	}
	defer m.unlock()
	was := m.suspended.Load()
	defer m.noteSuspension(was)
	if err := m.stageAside(t); err != nil {
		return errors.Join(err, t.Close(ctx))
	}
	point.At("dm: staged")
	if err := m.resume(ctx, o); err != nil {
		if !was && m.suspended.Load() {
			m.admit()
		}
		m.putBack()
		m.discard(t)
		return err
	}
	m.discard(m.takeAside())
	return nil
}

// stageAside is stage, and keeps what was in the inactive slot within reach: it
// still counts when somebody looks for a cycle, so that it can be put back.
func (m *Mapped) stageAside(t *Table) (err error) {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	old, err := m.put(t)
	if err == nil {
		m.aside = old
	}
	return err
}

// putBack undoes stageAside.
func (m *Mapped) putBack() {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	m.inactive, m.aside = m.aside, nil
}

// takeAside returns what stageAside kept.
func (m *Mapped) takeAside() *Table {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	t := m.aside
	m.aside = nil
	return t
}

func (m *Mapped) isRemoved() bool {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	return m.removed
}
