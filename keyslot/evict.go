package keyslot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyway/blkcrypto"
	"keyway/internal/plural"
	"keyway/internal/point"
)

// EvictKey takes k out of every slot that holds it or may, once no request
// uses it there: the Holder's part of Key.Evict. Requests for k wait
// meanwhile. A slot that the engine cannot empty is put in quarantine: it
// serves nobody until an eviction, a reset or a later attempt has emptied it. All slots are
// tried, whatever the engine says to one of them (blkcrypto.md, invariants 21
// to 24). If ctx ends while requests use the slot, all is as before.
func (m *Manager) EvictKey(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place {
	if m.engine == nil {
		return m.pass.evictKey(ctx, k)
	}
	t, start := m.began()
	p := m.evictEverywhere(ctx, k)
	if t != nil && p.Err == nil {
		(*t).Evicted(k, start, (*t).Now())
	}
	return p
}

func (m *Manager) evictEverywhere(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place {
	if m.direct.engine != nil {
		return m.evictDirect(ctx, k)
	}
	p := blkcrypto.Place{Holder: m.Name(), Detail: "in no keyslot"}
	point.At("keyslot: evicting")
	slots := m.leave(k)
	if slots == nil {
		return p
	}
	point.At("keyslot: leaving")
	var places []string
	var errs []error
	for _, s := range slots {
		had, err := m.evictSlot(ctx, s, k)
		if had != nil {
			places = append(places, fmt.Sprintf("keyslot %d", s.number))
		}
		errs = append(errs, err)
	}
	point.At("keyslot: left")
	m.left(k)
	if places != nil {
		p.Detail = strings.Join(places, ", ")
	}
	p.Err = errors.Join(errs...)
	return p
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

// leave keeps requests from k until left, and returns the slots that hold it: no
// other will meanwhile. If there is none, left must not follow. Those who wait for
// a slot with a dead key hear of it.
func (m *Manager) leave(k *blkcrypto.Key) (slots []*slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.slots {
		if s := &m.slots[i]; slices.Contains(s.holds, k) {
			slots = append(slots, s)
		}
	}
	if slots != nil {
		m.leaving[k.ID()]++
	}
	m.pump()
	return slots
}

func (m *Manager) left(k *blkcrypto.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaving[k.ID()]--; m.leaving[k.ID()] == 0 {
		delete(m.leaving, k.ID())
	}
	m.pump()
}

// evictSlot empties s if it holds k, or anything if k is nil, when its last
// request has ended. It returns the keys that s held, nil if it did nothing.
func (m *Manager) evictSlot(ctx context.Context, s *slot, k *blkcrypto.Key) (had []*blkcrypto.Key, err error) {
	m.mu.Lock()
	if k != nil && !slices.Contains(s.holds, k) || len(s.holds) == 0 {
		m.mu.Unlock()
		return nil, nil
	}
	had = slices.Clone(s.holds)
	g, err := m.await(ctx, &waiter{kind: wantSlot, key: k, slot: s})
	if err != nil {
		return had, fmt.Errorf("keyslot %d is in use by %s: %w", s.number, plural.Of(max(s.refs.Load(), 0), "request"), err)
	}
	if g.slot == nil {
		return nil, nil // reprogrammed meanwhile
	}
	had = slices.Clone(s.holds)
	err = m.empty(s)
	m.mu.Lock()
	m.lean = m.lean && err != nil // there is memory again
	m.done(s, 0)
	m.mu.Unlock()
	if err != nil {
		return had, fmt.Errorf("keyslot %d is in quarantine: %w", s.number, err)
	}
	return had, nil
}

// Close evicts every key from the engine, whose owner goes away; Get fails
// from then on. After an error it may be called again, and the keys still
// count the manager among their holders.
func (m *Manager) Close(ctx context.Context) error {
	if m.engine == nil {
		return nil
	}
	m.mu.Lock()
	m.closed = true
	m.stopRetrying()
	m.pump()
	m.mu.Unlock()
	point.At("keyslot: closed")
	if m.direct.engine != nil {
		if p := m.evictDirect(ctx, nil); p.Err != nil {
			return fmt.Errorf("%s: %w", p.Holder, p.Err)
		}
		return nil
	}

	var errs []error
	for i := range m.slots {
		had, err := m.evictSlot(ctx, &m.slots[i], nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Name(), err))
			continue
		}
		for _, k := range had {
			k.Release(m)
		}
	}
	return errors.Join(errs...)
}
