package dm

import (
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
)

// An ability is what the engines beneath a place do natively: the configs, and
// the hardware to which wrapped keys belong, nil if none is known. Wrapped keys
// are served where all engines beneath share one hardware (dm-fscrypt.md,
// invariant 47): to another's they are noise.
type ability struct {
	profile  blkcrypto.Profile
	hardware keyslot.Wrapper
}

// A profiler knows what the engines beneath it do.
type profiler interface {
	cryptoProfile() *blkcrypto.Profile
	abilityIn(*ripple) *ability
}

// An ability that does not change is its own profiler.
func (a *ability) cryptoProfile() *blkcrypto.Profile { return &a.profile }
func (a *ability) abilityIn(*ripple) *ability        { return a }

func (m *Mapped) cryptoProfile() *blkcrypto.Profile { return &m.ability.Load().profile }

// abilityIn is the ability as r has it, the present one if r is nil.
func (m *Mapped) abilityIn(r *ripple) *ability {
	if r != nil {
		if a, changed := r.now[m]; changed {
			return &a
		}
	}
	return m.ability.Load()
}

func profilerOf(dev block.Device, l *leaf) profiler {
	if h, ok := dev.(*Handle); ok {
		return h.Mapped
	}
	a := &ability{profile: dev.Info().Crypto}
	if l != nil && l.engine != nil {
		a.hardware = l.engine.Wrapper()
	}
	return a
}

// meet takes away what b cannot do.
func (a *ability) meet(b *ability) {
	a.profile = a.profile.Intersect(b.profile)
	if a.hardware != b.hardware {
		a.profile = a.profile.RawOnly()
	}
}

// ability is what the table serves natively, wherever in it a request lies: what
// every row does. The devices beneath are as r has them, or as they are if r is
// nil.
func (t *Table) ability(r *ripple) ability {
	a := t.rows[0].ability(r)
	for i := range t.rows[1:] {
		if a.profile.Empty() {
			break
		}
		b := t.rows[1+i].ability(r)
		a.meet(&b)
	}
	if !a.profile.Wraps() {
		a.hardware = nil
	}
	return a
}

// ability is what all devices beneath the row do, less the data unit sizes that
// its boundaries cut.
func (w *row) ability(r *ripple) ability {
	if w.typ.Features&PassesCrypto == 0 || len(w.profiles) == 0 {
		return ability{}
	}
	a := *w.profiles[0].abilityIn(r)
	for _, under := range w.profiles[1:] {
		a.meet(under.abilityIn(r))
	}
	a.profile = a.profile.Dividing(w.start).Dividing(w.chunk)
	return a
}
