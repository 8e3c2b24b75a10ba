package dm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyway/blkcrypto"
	"keyway/internal/point"
	"keyway/keyslot"
)

// Keyslots returns the manager of a leaf's inline engine. Every other device
// has a passthrough manager without slots: its profile is what the live table
// serves natively, and evicting a key there evicts it from every engine
// beneath, in the live and the inactive table, and from the fallback. Its Wrapper
// is the hardware beneath, as long as the profile has wrapped keys: also after the
// device has grown to have them (dm-fscrypt.md, invariant 47).
//
// Key.Evict reaches further, also to devices that have left the table.
func (m *Mapped) Keyslots() *keyslot.Manager {
	if e := m.Engine(); e != nil {
		return e
	}
	return keyslot.NewPassthrough(keyslot.Passthrough{
		Name:    fmt.Sprintf("device %q", m.Name()),
		Profile: func() blkcrypto.Profile { return *m.cryptoProfile() },
		Evict:   m.evictBeneath,
		Wrapper: func() keyslot.Wrapper { return m.ability.Load().hardware },
	})
}

func (m *Mapped) evictBeneath(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place {
	place := blkcrypto.Place{Holder: fmt.Sprintf("device %q", m.Name())}
	var details []string
	var errs []error
	point.At("dm: evicting beneath")
	for _, e := range m.managersBeneath() {
		p := e.EvictKey(ctx, k) // all of them, whatever one answers
		details = append(details, fmt.Sprintf("%s: %s", p.Holder, p.Detail))
		if p.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Holder, p.Err))
		}
	}
	place.Detail = strings.Join(details, "; ")
	place.Err = errors.Join(errs...)
	return place
}

// managersBeneath returns every manager with slots at or below m, in the order in
// which tables name them.
func (m *Mapped) managersBeneath() (found []*keyslot.Manager) {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	m.collect(&found, map[*Mapped]bool{})
	return found
}

// collect adds the managers at or below m. Called with graph.mu held.
func (m *Mapped) collect(found *[]*keyslot.Manager, seen map[*Mapped]bool) {
	if seen[m] {
		return
	}
	seen[m] = true
	add := func(e *keyslot.Manager) {
		if !slices.Contains(*found, e) {
			*found = append(*found, e)
		}
	}
	if e := m.Engine(); e != nil {
		add(e)
	}
	for _, t := range []*Table{m.live.Load(), m.inactive, m.aside} {
		if t == nil {
			continue
		}
		add(t.fallback)
		for i := range t.rows {
			for _, d := range t.rows[i].builder.devices {
				if h, ok := d.(*Handle); ok {
					h.Mapped.collect(found, seen)
				}
			}
		}
	}
}
