package keyslot

// Stats counts what a manager did and says how its slots are.
type Stats struct {
	Slots       int // in all; 0 for passthrough
	Resident    int // slots that hold a key
	Busy        int // slots that requests use
	Quarantined int // slots that the engine could not empty
	Programs    uint64
	Evictions   uint64
	Failures    uint64 // programs and evictions that the engine refused
	Waits       uint64 // requests that had to wait for a slot
}

// Stats returns the figures of this moment.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.stats
	st.Slots = len(m.slots)
	for i := range m.slots {
		s := &m.slots[i]
		if s.key.Load() != nil {
			st.Resident++
		}
		if s.broken != nil {
			st.Quarantined++
		} else if s.refs.Load() != 0 {
			st.Busy++
		}
	}
	return st
}

// A Resident is a key in a slot.
type Resident struct {
	Slot        int
	Key         string // its name
	ID          uint64
	Requests    int64 // that use it now
	Quarantined string
}

// Residents lists the keys in the slots, by slot.
func (m *Manager) Residents() []Resident {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Resident
	for i := range m.slots {
		s := &m.slots[i]
		k := s.key.Load()
		if k == nil {
			continue
		}
		r := Resident{Slot: i, Key: k.Name(), ID: k.ID(), Requests: max(s.refs.Load(), 0)}
		if s.broken != nil {
			r.Quarantined = s.broken.Error()
		}
		all = append(all, r)
	}
	return all
}
