package keyslot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyway/blkcrypto"
)

// EvictKey takes k out of the slot that holds it, once no request uses it:
// the Holder's part of Key.Evict. A slot that the engine cannot empty is
// quarantined: nobody gets it until an eviction or a reset has emptied it
// (blkcrypto.md, invariants 21 to 24).
func (m *Manager) EvictKey(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place {
	p := blkcrypto.Place{Holder: m.Name()}
	if m.engine == nil {
		return m.pass.evict(ctx, k)
	}
	p.Detail = "in no keyslot"
	var places []string
	for {
		s, err := m.takeHolding(ctx, k)
		if err == nil && s != nil {
			places = append(places, fmt.Sprintf("keyslot %d", s.number))
			p.Detail = strings.Join(places, ", ")
			err = m.empty(k, s)
		}
		if err != nil || s == nil {
			p.Err = err
			return p
		}
	}
}

// Evict evicts k from this manager alone; the key remains usable and is
// programmed again when a request needs it.
func (m *Manager) Evict(ctx context.Context, k *blkcrypto.Key) error {
	p := m.EvictKey(ctx, k)
	if p.Err != nil {
		return fmt.Errorf("%s: evict %v: %w", p.Holder, k, p.Err)
	}
	return nil
}

// takeHolding takes the slot whose engine side holds k, when its last request
// has ended, and returns nil if there is none. From then until empty has run,
// requests for k wait. If ctx ends first everything is as before.
func (m *Manager) takeHolding(ctx context.Context, k *blkcrypto.Key) (*slot, error) {
	id := k.ID()
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		s := m.holding(k)
		if s == nil && !m.pending[id] {
			return nil, nil
		}
		if s != nil && (m.byKey[id] == s || s.broken != nil) && !m.leaving[id] {
			return s, m.drain(ctx, k, s)
		}
		// Being programmed, reused for another key, or evicted by somebody
		// else: look again after the next change.
		if err := m.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// drain takes s, which holds k, when its last request has ended. mu is held
// at entry and return.
func (m *Manager) drain(ctx context.Context, k *blkcrypto.Key, s *slot) error {
	id := k.ID()
	mapped := m.byKey[id] == s
	m.leaving[id] = true
	delete(m.byKey, id)
	m.publish()
	for !s.refs.CompareAndSwap(0, taken) {
		if err := m.wait(ctx); err != nil {
			delete(m.leaving, id)
			if mapped {
				m.byKey[id] = s
			}
			m.pump()
			return fmt.Errorf("keyslot %d is in use by %d requests: %w", s.number, s.refs.Load(), err)
		}
	}
	return nil
}

// wait waits for a change of any slot. mu is held at entry and return.
func (m *Manager) wait(ctx context.Context) error {
	changed := m.changed
	m.waiting.Add(1)
	m.mu.Unlock()
	var err error
	select {
	case <-changed:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	m.mu.Lock()
	m.waiting.Add(-1)
	return err
}

// holding returns a slot whose engine side holds k, or may. Called with mu held.
func (m *Manager) holding(k *blkcrypto.Key) *slot {
	for i := range m.slots {
		s := &m.slots[i]
		if s.key.Load() == k || slices.Contains(s.maybe, k) {
			return s
		}
	}
	return nil
}

// empty evicts the slot that takeHolding returned.
func (m *Manager) empty(k *blkcrypto.Key, s *slot) error {
	<-m.engineFree
	err := m.engine.Evict(s.number)
	m.engineFree <- struct{}{}

	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.leaving, k.ID())
	m.emptied(s, err)
	m.pump()
	if err != nil {
		return fmt.Errorf("keyslot %d is quarantined: %w", s.number, err)
	}
	return nil
}

// Close evicts every key from the engine: its owner goes away.
func (m *Manager) Close(ctx context.Context) error {
	if m.engine == nil {
		return nil
	}
	var errs []error
	for i := range m.slots {
		if k := m.slots[i].key.Load(); k != nil {
			if p := m.EvictKey(ctx, k); p.Err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", p.Holder, p.Err))
				continue
			}
			k.Release(m)
		}
	}
	return errors.Join(errs...)
}
