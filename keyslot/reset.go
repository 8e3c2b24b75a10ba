package keyslot

import (
	"context"
	"errors"
	"fmt"
)

// Reprogram puts every key back into its slot after the engine lost them.
// Requests that come meanwhile wait (blkcrypto.md, invariant 20). A key that
// cannot be programmed loses its slot; the error names all of those, and the
// others are in place.
func (m *Manager) Reprogram() error {
	if m.engine == nil {
		panic("keyslot: reprogram of a manager without slots")
	}
	<-m.engineFree
	m.mu.Lock()
	m.resetting = true
	m.publish()
	m.mu.Unlock()

	var errs []error
	for i := range m.slots {
		if err := m.restore(&m.slots[i]); err != nil {
			errs = append(errs, fmt.Errorf("%s: keyslot %d: %w", m.engine.Name(), i, err))
		}
	}

	m.mu.Lock()
	m.resetting = false
	m.pump()
	m.mu.Unlock()
	m.engineFree <- struct{}{}
	return errors.Join(errs...)
}

// restore programs the key of one slot again. The caller has the engine's
// token, so a slot that is taken waits for it to be programmed or evicted and
// is left to that: an eviction that races a reset wins (dm-fscrypt.md,
// invariant 65).
func (m *Manager) restore(s *slot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, broken := s.key.Load(), s.broken != nil
	if k == nil && !broken {
		return nil
	}
	// Transforms in progress are short and wait for nothing.
	for (broken || m.byKey[k.ID()] == s) && !s.refs.CompareAndSwap(0, taken) {
		if broken {
			return nil // somebody is at it
		}
		_ = m.wait(context.Background())
	}
	if !broken && m.byKey[k.ID()] != s {
		return nil
	}
	m.mu.Unlock()
	var err, still error
	if broken {
		still = m.engine.Evict(s.number)
	} else {
		err, still = m.load(k, s)
	}
	m.mu.Lock()
	if broken {
		m.emptied(s, still)
	} else {
		m.loaded(k, s, err, still)
	}
	return errors.Join(err, still)
}
