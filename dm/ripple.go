package dm

// A ripple is what a change of one device's live table does to the profiles of
// that device and of all above it: worked out first, and then either made true
// everywhere or nowhere (dm-fscrypt.md, invariants 42 to 44). It is used with
// graph.mu held.
type ripple struct {
	now   map[*Mapped]ability // of those that change
	order []*Mapped
}

// rippleOf works out what follows if m's live table is t.
func rippleOf(m *Mapped, t *Table) *ripple {
	r := &ripple{now: map[*Mapped]ability{}}
	a := ability{}
	if t != nil {
		a = t.ability(r)
	}
	r.set(m, a)
	return r
}

func (r *ripple) set(m *Mapped, a ability) {
	if *m.abilityIn(r) == a {
		return
	}
	if _, again := r.now[m]; !again {
		r.order = append(r.order, m)
	}
	r.now[m] = a
	for h := range m.handles {
		if t := h.table; t != nil && t.owner != nil && t.owner.live.Load() == t {
			r.set(t.owner, t.ability(r))
		}
	}
}

// commit publishes the profiles, and tells who waits for events. A request that
// meets an older profile is still served, by the fallback of one level or the
// other: see StartKey for the keys that no fallback serves.
func (r *ripple) commit() {
	for _, m := range r.order {
		a := r.now[m]
		old := m.ability.Swap(&a)
		if old.profile != a.profile { // not there and back again
			m.events.raise(Event{Kind: EventProfile, Old: old.profile, New: a.profile})
		}
	}
}
