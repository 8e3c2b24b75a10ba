package keyslot

import (
	"context"
	"fmt"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/plural"
	"keyway/internal/point"
)

// Slotless is an Engine whose Slots is 0: each request brings its key, as those of
// the Exynos FMP do. Program, Evict and Crypt of it are never called.
type Slotless interface {
	Engine

	// CryptKey transforms whole data units as Crypt does, with key, which is valid
	// until it returns. Nothing made of the key is left then.
	CryptKey(c blkcrypto.Config, key []byte, d Direction, dun blkcrypto.DUN, dst, src block.Segments) error
}

// unnumbered is the number of a slot that stands for requests that bring a key.
const unnumbered = -1

// directs are the keys in use of an engine without slots. There is a slot for each,
// as long as requests use it; it is the manager's own, the engine has none.
type directs struct {
	engine  Slotless
	slots   map[uint64]*slot // by key ID
	free    []*slot          // of keys not in use, for reuse
	changed chan struct{}    // closed and replaced when a slot or a bar goes
}

// get is Get: it waits only for the end of an eviction. Called without mu.
func (m *Manager) getDirect(ctx context.Context, k *blkcrypto.Key, nowait bool) (Slot, error) {
	if err := m.check(k); err != nil {
		return Slot{}, err
	}
	point.At("keyslot: missed")
	if err := k.Program(m, func([]byte) error { return nil }); err != nil {
		return Slot{}, err
	}
	point.At("keyslot: told")
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.leaving[k.ID()] > 0 && !k.Dead() {
		if nowait {
			return Slot{}, block.ErrWouldBlock
		}
		if err := m.awaitDirect(ctx); err != nil {
			return Slot{}, fmt.Errorf("waiting for the end of an eviction from %s: %w", m.Name(), err)
		}
	}
	switch d := &m.direct; {
	case m.closed:
		return Slot{}, block.ErrClosed
	case k.Dead():
		return Slot{}, blkcrypto.ErrKeyEvicted
	case d.slots[k.ID()] == nil && len(d.free) > 0:
		last := len(d.free) - 1
		d.slots[k.ID()], d.free = d.free[last], d.free[:last]
	case d.slots[k.ID()] == nil:
		d.slots[k.ID()] = &slot{number: unnumbered}
	}
	s := m.direct.slots[k.ID()]
	s.key.Store(k)
	s.refs.Add(1)
	return Slot{m, s}, nil
}

// awaitDirect gives mu away until something has changed.
func (m *Manager) awaitDirect(ctx context.Context) error {
	changed := m.direct.changed
	m.mu.Unlock()
	defer m.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Manager) tellDirect() {
	close(m.direct.changed)
	m.direct.changed = make(chan struct{})
}

func (m *Manager) putDirect(s *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := s.refs.Add(-1)
	if n < 0 {
		panic("keyslot: slot released twice")
	}
	if n > 0 {
		return
	}
	k := s.key.Swap(nil)
	delete(m.direct.slots, k.ID())
	m.direct.free = append(m.direct.free, s)
	if len(m.leaving) > 0 || m.closed {
		m.tellDirect()
	}
}

func (m *Manager) cryptDirect(s *slot, d Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	k := s.key.Load()
	return k.Use(m, func(key []byte) error {
		return m.direct.engine.CryptKey(k.Config(), key, d, dun, dst, src)
	})
}

// evictDirect waits for the requests that use k, nil for all keys. The engine
// keeps nothing of it between them.
func (m *Manager) evictDirect(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place {
	p := blkcrypto.Place{Holder: m.Name(), Detail: "with no request; it has no keyslots"}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k != nil {
		m.leaving[k.ID()]++
		defer func() {
			if m.leaving[k.ID()]--; m.leaving[k.ID()] == 0 {
				delete(m.leaving, k.ID())
			}
			m.tellDirect()
		}()
	}
	for {
		busy := int64(0)
		for id, s := range m.direct.slots {
			if k == nil || k.ID() == id {
				busy += s.refs.Load()
			}
		}
		if busy == 0 {
			return p
		}
		if err := m.awaitDirect(ctx); err != nil {
			p.Detail, p.Err = "with requests", fmt.Errorf("in use by %s: %w", plural.Of(busy, "request"), err)
			return p
		}
	}
}
