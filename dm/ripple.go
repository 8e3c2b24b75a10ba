package dm

import (
	"keyway/blkcrypto"
)

// A ripple is what a change of one device's live table does to the profiles of
// that device and of all above it: worked out first, and then either made true
// everywhere or nowhere (dm-fscrypt.md, invariants 42 to 44). It is used with
// graph.mu held.
type ripple struct {
	now   map[*Mapped]blkcrypto.Profile // of those that change
	order []*Mapped
}

// rippleOf works out what follows if m's live table is t.
func rippleOf(m *Mapped, t *Table) *ripple {
	r := &ripple{now: map[*Mapped]blkcrypto.Profile{}}
	p := blkcrypto.Profile{}
	if t != nil {
		p = t.profile(r)
	}
	r.set(m, p)
	return r
}

func (r *ripple) set(m *Mapped, p blkcrypto.Profile) {
	if *m.cryptoProfileIn(r) == p {
		return
	}
	if _, again := r.now[m]; !again {
		r.order = append(r.order, m)
	}
	r.now[m] = p
	for h := range m.handles {
		if t := h.table; t != nil && t.owner != nil && t.owner.live.Load() == t {
			r.set(t.owner, t.profile(r))
		}
	}
}

// commit publishes the profiles, and tells who waits for events. A request that
// meets an older profile is still served, by the fallback of one level or the
// other: see StartKey for the keys that no fallback serves.
func (r *ripple) commit() {
	for _, m := range r.order {
		p := r.now[m]
		old := m.profile.Swap(&p)
		if *old == p { // there and back again
			continue
		}
		m.events.raise(Event{Kind: EventProfile, Old: *old, New: p})
	}
}

func (m *Mapped) cryptoProfile() *blkcrypto.Profile { return m.profile.Load() }

// cryptoProfileIn is the profile as r has it.
func (m *Mapped) cryptoProfileIn(r *ripple) *blkcrypto.Profile {
	if r != nil {
		if p, changed := r.now[m]; changed {
			return &p
		}
	}
	return m.profile.Load()
}
