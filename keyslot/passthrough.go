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
// evicts is that of the devices beneath it.
func NewPassthrough(name string, profile func() blkcrypto.Profile,
	evict func(ctx context.Context, k *blkcrypto.Key) blkcrypto.Place) *Manager {
	return &Manager{pass: passthrough{name, profile, evict}}
}
