package keyslot

import (
	"context"

	"keyway/blkcrypto"
)

// A Passthrough is what a manager without slots asks its owner.
type Passthrough struct {
	Name    string
	Profile func() blkcrypto.Profile
	// Evict evicts; nil: there is nothing to evict.
	Evict func(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place
	// Wrapper is the hardware behind the engines, nil if they share none; the
	// field may be nil too.
	Wrapper func() Wrapper
}

// NewPassthrough returns a manager with no slots: it advertises the owner's
// profile, Get succeeds without a slot, an eviction and the making of wrapped
// keys are the owner's, and there is nothing to reprogram. A mapped device has
// one: what it advertises and evicts is that of the devices beneath it.
func NewPassthrough(p Passthrough) *Manager { return &Manager{pass: p} }

// get is Get: the zero Slot, unless the key is dead.
func (p *Passthrough) get(k *blkcrypto.Key) (Slot, error) {
	if k.Dead() {
		return Slot{}, blkcrypto.ErrKeyEvicted
	}
	return Slot{}, nil
}

func (p *Passthrough) evictKey(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place {
	if p.Evict == nil {
		return blkcrypto.Place{Holder: p.Name, Detail: "in no keyslot"}
	}
	return p.Evict(ctx, k)
}
