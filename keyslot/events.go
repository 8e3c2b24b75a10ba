package keyslot

import "errors"

// An EventKind says what happened to an engine.
type EventKind uint8

const (
	Quarantined EventKind = iota // the engine could not empty a slot, which now serves nobody
	Cleared                      // a slot is out of quarantine
	WasReset                     // the engine lost its keys, and got back those that are mapped
)

// An Event is one of them.
type Event struct {
	Kind EventKind
	Slot int    // -1 for WasReset
	Keys int    // WasReset: how many keys are in place again; Quarantined: how many may be in the slot
	Err  error  // Quarantined: what the engine said; WasReset: which keys are not in place
	Name string // of the engine
}

// Observe calls f at each event from then on, instead of whom it called before; nil
// for nobody. f must neither wait nor call the manager.
func (m *Manager) Observe(f func(Event)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observe = f
}

// tell is called with mu held.
func (m *Manager) tell(e Event) {
	if m.observe != nil {
		e.Name = m.Name()
		m.observe(e)
	}
}

// tellOf tells what became of s, which was in quarantine for the reason was, or not.
// Called with mu held. A further attempt that fails is no news.
func (m *Manager) tellOf(s *slot, was error) {
	switch {
	case was == nil && s.broken != nil:
		m.tell(Event{Kind: Quarantined, Slot: s.number, Keys: len(s.holds), Err: s.broken})
	case was != nil && s.broken == nil:
		m.tell(Event{Kind: Cleared, Slot: s.number})
	}
}

// tellReset is the end of a reset. Called with mu held.
func (m *Manager) tellReset(errs []error) {
	keys := 0
	for i := range m.slots {
		if m.slots[i].key.Load() != nil {
			keys++
		}
	}
	m.tell(Event{Kind: WasReset, Slot: -1, Keys: keys, Err: errors.Join(errs...)})
}
