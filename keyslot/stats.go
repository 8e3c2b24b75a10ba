package keyslot

import "keyway/blkcrypto"

// Stats counts what a manager did and says how its slots are.
type Stats struct {
	Slots       int // in all; 0 for passthrough and for an engine without slots
	Resident    int // slots that hold a key, or may; without slots: keys that requests use
	Busy        int // slots that requests use, or that are being programmed
	Quarantined int // slots that the engine could not empty
	Programs    uint64
	Evictions   uint64
	Failures    uint64 // programs and evictions that failed
	Waits       uint64 // requests that had to wait for a slot
	Resets      uint64 // after which the keys were put back
}

// Stats returns the figures of this moment.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.stats
	st.Slots = len(m.slots)
	for i := range m.slots {
		s := &m.slots[i]
		if len(s.holds) > 0 {
			st.Resident++
		}
		if s.broken != nil {
			st.Quarantined++
		} else if s.refs.Load() != 0 {
			st.Busy++
		}
	}
	st.Resident += len(m.direct.slots)
	st.Busy += len(m.direct.slots)
	return st
}

// A Resident is a key that is in a slot, or may be.
type Resident struct {
	Slot        int    // -1: the engine has no slots, and requests bring the key
	Key         string // its name
	ID          uint64
	Requests    int64  // that use it now
	Quarantined string // why the engine could not empty the slot, else ""
}

// Residents lists the keys in the slots, by slot. After a failure of the
// engine several may be in one.
func (m *Manager) Residents() []Resident {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Resident
	for i := range m.slots {
		s := &m.slots[i]
		for _, k := range s.holds {
			all = append(all, s.resident(k))
		}
	}
	for _, s := range m.direct.slots {
		all = append(all, s.resident(s.key.Load()))
	}
	return all
}

func (s *slot) resident(k *blkcrypto.Key) Resident {
	r := Resident{Slot: s.number, Key: k.Name(), ID: k.ID(), Requests: max(s.refs.Load(), 0)}
	if s.broken != nil {
		r.Quarantined = s.broken.Error()
	}
	return r
}
