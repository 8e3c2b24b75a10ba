package keyslot

import (
	"context"
	"errors"
	"fmt"

	"keyway/blkcrypto"
	"keyway/internal/point"
)

// Reset takes all slots when their last requests have ended, calls lose, in
// which the engine loses its keys, and puts every key back into its slot.
// Requests that come meanwhile wait: none meets an engine without its key
// (blkcrypto.md, invariant 20). A key that cannot be programmed loses its
// slot; the error names all of those, and the others are in place. Whoever
// has a Slot must not call Reset, nor may lose call the manager.
func (m *Manager) Reset(lose func()) error {
	if m.engine == nil {
		panic("keyslot: reset of a manager without slots")
	}
	if m.direct.engine != nil {
		lose() // there is nothing to put back
		m.mu.Lock()
		m.stats.Resets++
		m.tellReset(nil)
		m.mu.Unlock()
		return nil
	}
	m.take(&waiter{kind: wantEngine})
	point.At("keyslot: resetting")
	for i := range m.slots {
		m.take(&waiter{kind: wantForReset, slot: &m.slots[i]})
	}
	point.At("keyslot: losing")
	lose()
	point.At("keyslot: lost")
	var errs []error
	for i := range m.slots {
		if err := m.restore(&m.slots[i]); err != nil {
			errs = append(errs, fmt.Errorf("%s: keyslot %d: %w", m.engine.Name(), i, err))
		}
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.slots {
		m.slots[i].refs.Store(0)
	}
	m.calling, m.resetting = false, false
	m.stats.Resets++
	m.tellReset(errs)
	m.pump()
	return errors.Join(errs...)
}

// Reprogram is Reset after the engine has lost its keys by itself. Requests
// that were using it then are the engine's to fail.
func (m *Manager) Reprogram() error { return m.Reset(func() {}) }

func (m *Manager) take(w *waiter) {
	m.mu.Lock()
	_, _ = m.await(context.Background(), w) // cannot fail: that context never ends
}

// restore puts the key of s back; the caller has s and the engine. A key
// whose eviction has begun stays out: an eviction that races a reset wins
// (dm-fscrypt.md, invariant 65).
func (m *Manager) restore(s *slot) error {
	m.mu.Lock()
	k := s.key.Load()
	m.unlink(s)
	m.mu.Unlock()

	if k != nil {
		if err := m.load(k, s); !errors.Is(err, blkcrypto.ErrKeyEvicted) || s.broken != nil {
			return err
		}
		return nil
	}
	if len(s.holds) == 0 {
		return nil
	}
	return m.empty(s)
}
