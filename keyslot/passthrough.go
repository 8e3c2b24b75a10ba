package keyslot

import (
	"context"

	"keyway/blkcrypto"
)

// passthrough is what a manager without slots asks.
type passthrough struct {
	name    string
	profile func() blkcrypto.Profile
	evict   func(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place
}

// NewPassthrough returns a manager with no slots: it advertises what profile
// returns, Get succeeds without a slot, an eviction is its owner's, and there
// is nothing to reprogram. A mapped device has one: what it advertises and
// evicts is that of the devices beneath it. Without evict there is nothing to
// evict either.
func NewPassthrough(name string, profile func() blkcrypto.Profile,
	evict func(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place) *Manager {
	return &Manager{pass: passthrough{name, profile, evict}}
}

// get is Get: the zero Slot, unless the key is dead.
func (p *passthrough) get(k *blkcrypto.Key) (Slot, error) {
	if k.Dead() {
		return Slot{}, blkcrypto.ErrKeyEvicted
	}
	return Slot{}, nil
}

func (p *passthrough) evictKey(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place {
	if p.evict == nil {
		return blkcrypto.Place{Holder: p.name, Detail: "in no keyslot"}
	}
	return p.evict(ctx, k)
}
