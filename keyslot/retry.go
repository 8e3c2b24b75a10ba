package keyslot

import (
	"context"
	"time"

	"keyway/internal/point"
)

// How long after a failed eviction the next is tried: doubled each time.
const (
	retryFirst = time.Second
	retryLast  = time.Minute
)

// retryLater has the slots in quarantine tried again (dm-fscrypt.md, invariant 53).
// Called with mu held.
func (m *Manager) retryLater() {
	if m.retry != nil || m.closed {
		return
	}
	m.backoff = min(max(2*m.backoff, retryFirst), retryLast)
	m.retry = time.AfterFunc(m.backoff, m.retryNow)
}

func (m *Manager) retryNow() {
	m.mu.Lock()
	m.retry = nil
	m.mu.Unlock()
	point.At("keyslot: retrying")
	for i := range m.slots {
		m.repairSlot(&m.slots[i])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.slots {
		if m.slots[i].broken != nil {
			m.retryLater()
			return
		}
	}
	m.backoff = 0
}

// repairSlot empties s if it is in quarantine.
func (m *Manager) repairSlot(s *slot) {
	m.mu.Lock()
	if s.broken == nil || m.closed {
		m.mu.Unlock()
		return
	}
	g, err := m.await(context.Background(), &waiter{kind: wantSlot, slot: s, repair: true})
	if err != nil || g.slot == nil {
		return
	}
	_ = m.empty(s) // it stays in quarantine, and says why
	m.mu.Lock()
	m.done(s, 0)
	m.mu.Unlock()
}

// stopRetrying is the beginning of Close. Called with mu held.
func (m *Manager) stopRetrying() {
	if m.retry != nil {
		m.retry.Stop()
		m.retry = nil
	}
}
