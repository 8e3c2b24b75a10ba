package dm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/point"
	"keyway/keyslot"
)

// A use is one StartKey that has not been stopped.
type use struct {
	key *blkcrypto.Key
	by  string
	row *Builder // of the target that did it, or nil

	hardware keyslot.Wrapper // to which a wrapped key belongs
}

// StartKey declares that requests with k will come to m, as an upper layer does
// before the first (blk_crypto_start_using_key). by says who, for people.
//
// A raw key always can: what no engine beneath serves, software does, whatever
// tables come and go, and what it needs for that is kept in reserve from now on,
// so that no request fails for want of memory later. Only a device that serves the
// key natively and can never change, because it and all beneath are immutable,
// keeps nothing; nor does one without a table yet.
//
// A hardware-wrapped key has no software form, so it is refused with
// block.ErrNoCrypto unless every path beneath serves it now, and from then until
// stop, or its eviction, no reload of m or of a device beneath takes that away
// (dm-fscrypt.md, invariant 38). stop may be called again.
func (m *Mapped) StartKey(k *blkcrypto.Key, by string) (stop func(), err error) {
	return m.startKey(&use{key: k, by: by})
}

func (m *Mapped) startKey(u *use) (stop func(), err error) {
	k := u.key
	graph.mu.Lock()
	defer graph.mu.Unlock()
	switch c := k.Config(); {
	case m.removed:
		return nil, fmt.Errorf("device %q: %w", m.name, ErrRemoved)
	case k.Evicted():
		return nil, blkcrypto.ErrKeyEvicted
	case c.KeyType == blkcrypto.HWWrapped && !m.cryptoProfile().Supports(c):
		return nil, fmt.Errorf("%w: device %q: no engine beneath takes key %v, and a wrapped key has no software form",
			block.ErrNoCrypto, m.name, k)
	}
	release, err := m.reserve(k)
	if err != nil {
		return nil, fmt.Errorf("device %q: key %v: %w", m.name, k, err)
	}
	u.hardware = m.ability.Load().hardware
	m.uses[u] = true
	return func() {
		graph.mu.Lock()
		defer graph.mu.Unlock()
		if m.uses[u] {
			delete(m.uses, u)
			release()
		}
	}, nil
}

// reserve sees to it that the fallback can take k's place at the engines, where it
// may have to. Called with graph.mu held.
func (m *Mapped) reserve(k *blkcrypto.Key) (release func(), err error) {
	t, c := m.live.Load(), k.Config()
	native := m.cryptoProfile().Supports(c)
	if t == nil || c.KeyType == blkcrypto.HWWrapped || native && m.fixed() {
		return func() {}, nil
	}
	if p := t.fallback.Profile(); !p.Supports(c) {
		if native {
			return func() {}, nil // by a mode that software does not have
		}
		return nil, fmt.Errorf("%w: neither an engine beneath nor %s takes it", block.ErrNoCrypto, t.fallback.Name())
	}
	return t.fallback.Reserve(c.Mode)
}

// fixed reports whether nothing can ever change at m and beneath. Called with
// graph.mu held.
func (m *Mapped) fixed() bool {
	t := m.live.Load()
	if t == nil || !m.leaf && !m.o.Immutable {
		return false
	}
	for h := range t.handles {
		if !h.fixed() {
			return false
		}
	}
	return true
}

// A Stranded key is one that a reload would leave without an engine.
type Stranded struct {
	Device string // on which it was started
	By     string
	Key    *blkcrypto.Key
}

// ErrStrands refuses a reload.
var ErrStrands = errors.New("the new table cannot serve a wrapped key that is in use")

// A StrandsError is ErrStrands with the keys.
type StrandsError struct{ Keys []Stranded }

func (e *StrandsError) Error() string {
	var b strings.Builder
	for i, s := range e.Keys {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "key %v is in use by %s on device %q and the new table cannot serve it", s.Key, s.By, s.Device)
	}
	return b.String()
}

// Is makes it an ErrStrands.
func (e *StrandsError) Is(target error) bool { return target == ErrStrands }

// stranded returns the keys in use that r would leave without an engine.
func (r *ripple) stranded() *StrandsError {
	var e StrandsError
	for _, m := range r.order {
		now := r.now[m]
		for u := range m.uses {
			c := u.key.Config()
			if c.KeyType == blkcrypto.HWWrapped && !u.key.Evicted() && (!now.profile.Supports(c) || now.hardware != u.hardware) {
				e.Keys = append(e.Keys, Stranded{m.name, u.by, u.key})
			}
		}
	}
	if e.Keys == nil {
		return nil
	}
	return &e
}

// swap makes next m's live table, with all that follows for the profiles of m and
// of the devices above, in one step; or nothing is changed. With revoke, keys that
// stand in the way are evicted first. m is suspended.
func (m *Mapped) swap(ctx context.Context, next *Table, revoke bool) (old retired, err error) {
	needs := next.needs()
	for {
		point.At("dm: swapping")
		old, stranded, err := m.trySwap(next, needs)
		switch {
		case err != nil:
			return retired{}, err
		case stranded == nil:
			point.At("dm: swapped")
			return old, nil
		case !revoke:
			return retired{}, stranded
		}
		for _, s := range stranded.Keys {
			receipt, err := s.Key.Revoke(ctx) // requests with it may wait here for the end of this
			m.events.raise(Event{Kind: EventRevoked, Key: s.Key.Name(), Places: len(receipt.Places), Err: err})
			if err != nil {
				return retired{}, fmt.Errorf("revoke: %w", err)
			}
		}
	}
}

func (m *Mapped) trySwap(next *Table, needs []need) (old retired, stranded *StrandsError, err error) {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	if err := next.misfit(needs); err != nil {
		return retired{}, nil, err
	}
	r := rippleOf(m, next)
	if stranded := r.stranded(); stranded != nil {
		return retired{}, stranded, nil
	}
	m.inactive = nil
	was := m.live.Swap(next)
	r.commit()
	return m.giveUp(was), nil, nil
}
