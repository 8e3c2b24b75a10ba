package keyslot

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"keyway/blkcrypto"
	"keyway/block"
)

// getSlow is Get under the lock: a hit while the index is withheld, a key to
// program, or a wait.
func (m *Manager) getSlow(ctx context.Context, k *blkcrypto.Key, nowait bool) (Slot, error) {
	c := k.Config()
	if p := m.engine.Profile(); !p.Supports(c) {
		return Slot{}, fmt.Errorf("%w: %s does not support %v", block.ErrNoCrypto, m.engine.Name(), c)
	}
	if k.Evicted() {
		return Slot{}, blkcrypto.ErrKeyEvicted
	}
	m.mu.Lock()
	if nowait {
		defer m.mu.Unlock()
		if s := m.hit(k); s != nil {
			return Slot{m, s}, nil
		}
		return Slot{}, block.ErrWouldBlock
	}
	w := &waiter{key: k, ready: make(chan grant, 1)}
	m.queue = append(m.queue, w)
	m.waiting.Add(1)
	m.pump()
	if len(w.ready) == 0 {
		m.stats.Waits++
	}
	m.mu.Unlock()

	var g grant
	select {
	case g = <-w.ready:
	case <-ctx.Done():
		if m.abandon(w) {
			return Slot{}, fmt.Errorf("waiting for a keyslot of %s: %w", m.engine.Name(), context.Cause(ctx))
		}
		g = <-w.ready // it came at the same moment
	}
	switch {
	case g.err != nil:
		return Slot{}, g.err
	case g.program:
		return m.program(k, g.slot)
	}
	return Slot{m, g.slot}, nil
}

// abandon takes w off the queue and reports whether it was still there.
func (m *Manager) abandon(w *waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.queue, w)
	if i < 0 {
		return false
	}
	m.queue = slices.Delete(m.queue, i, i+1)
	m.waiting.Add(-1)
	m.pump()
	return true
}

// hit returns a new reference to the slot that holds k, nil if there is none
// or if too many have passed the first waiter already. Called with mu held.
func (m *Manager) hit(k *blkcrypto.Key) *slot {
	s := m.byKey[k.ID()]
	if s == nil || m.resetting || len(m.queue) > 0 && m.passed >= maxPassed || !s.ref() {
		return nil
	}
	if len(m.queue) > 0 {
		m.passed++
	}
	return s
}

// pump serves the queue as far as the slots allow, in order, and then decides
// whether the index may be used. It is called with mu held after every change
// that somebody may be waiting for.
func (m *Manager) pump() {
	close(m.changed)
	m.changed = make(chan struct{})
	if m.resetting {
		return
	}
	starved := false // a waiter further ahead has no slot
	m.queue = slices.DeleteFunc(m.queue, func(w *waiter) bool {
		g, served := m.serve(w.key, starved)
		switch {
		case served:
			w.ready <- g
			m.waiting.Add(-1)
		case !m.pending[w.key.ID()] && !m.leaving[w.key.ID()]:
			starved = true
		}
		return served
	})
	if !starved {
		m.passed = 0
	}
	m.publish()
}

// serve grants k a slot if it may have one now.
func (m *Manager) serve(k *blkcrypto.Key, starved bool) (grant, bool) {
	id := k.ID()
	switch {
	case k.Evicted():
		return grant{err: blkcrypto.ErrKeyEvicted}, true
	case m.pending[id] || m.leaving[id]:
		return grant{}, false
	}
	if s := m.byKey[id]; s != nil {
		if starved && m.passed >= maxPassed || !s.ref() {
			return grant{}, false
		}
		if starved {
			m.passed++
		}
		return grant{slot: s}, true
	}
	if starved {
		return grant{}, false
	}
	s := m.victim()
	if s == nil {
		return grant{}, false
	}
	if old := s.key.Load(); old != nil {
		delete(m.byKey, old.ID())
	}
	m.pending[id] = true
	return grant{slot: s, program: true}, true
}

// victim takes the idle slot that was released longest ago, an empty one
// before all others. It returns nil if every slot is in use.
func (m *Manager) victim() *slot {
	for {
		var best *slot
		for i := range m.slots {
			s := &m.slots[i]
			if s.refs.Load() != 0 || s.broken != nil {
				continue
			}
			if s.key.Load() == nil {
				best = s
				break
			}
			if best == nil || s.released.Load() < best.released.Load() {
				best = s
			}
		}
		if best == nil || best.refs.CompareAndSwap(0, taken) {
			return best
		}
	}
}

// publish replaces the index. Called with mu held.
func (m *Manager) publish() {
	if len(m.queue) > 0 || m.resetting {
		m.index.Store(&noIndex)
		return
	}
	next := maps.Clone(m.byKey)
	m.index.Store(&next)
}

var noIndex map[uint64]*slot

// program puts k into s, which the caller has taken, and returns a reference
// to it.
func (m *Manager) program(k *blkcrypto.Key, s *slot) (Slot, error) {
	<-m.engineFree
	err, broken := m.load(k, s)
	m.engineFree <- struct{}{}

	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pending, k.ID())
	m.loaded(k, s, err, broken)
	if err == nil {
		s.refs.Store(1)
	}
	m.pump()
	if err != nil {
		return Slot{}, fmt.Errorf("%s: keyslot %d: program: %w", m.engine.Name(), s.number, err)
	}
	return Slot{m, s}, nil
}

// load programs k into the engine's side of s. The caller has the engine's
// token and s. After an error the slot may hold the old key, the new one or a
// part of either, so it is emptied; broken says that this failed too.
func (m *Manager) load(k *blkcrypto.Key, s *slot) (err, broken error) {
	err = k.Program(m, func(key []byte) error {
		return m.engine.Program(s.number, k.Config(), key)
	})
	if err != nil {
		broken = m.engine.Evict(s.number)
	}
	return err, broken
}

// loaded records what load did and lets s go. Called with mu held.
func (m *Manager) loaded(k *blkcrypto.Key, s *slot, err, broken error) {
	if err != nil {
		m.stats.Failures++
		delete(m.byKey, k.ID())
		s.maybe = append(s.maybe, k)
		m.emptied(s, broken)
		return
	}
	m.stats.Programs++
	s.key.Store(k)
	s.maybe = nil
	m.byKey[k.ID()] = s
	s.refs.Store(0)
}

// emptied records that the engine was told to empty s, which the caller has
// taken, and lets s go: free, or quarantined if the engine failed. Called with
// mu held.
func (m *Manager) emptied(s *slot, broken error) {
	s.broken = broken
	if broken == nil {
		m.stats.Evictions++
		s.key.Store(nil)
		s.maybe = nil
	} else {
		m.stats.Failures++
	}
	s.refs.Store(0)
}
