package keyslot

import (
	"keyway/blkcrypto"
	"keyway/block"
)

// A Direction says what an engine does with data units.
type Direction bool

const (
	Decrypt Direction = false
	Encrypt Direction = true
)

// An Engine is one inline encryption engine: real, emulated or software.
// The Manager serialises Program and Evict and never calls them on a slot in
// use; Crypt is called concurrently.
type Engine interface {
	// Name says which engine this is, for people.
	Name() string

	// Profile is the set of configs that Program takes. It is constant.
	Profile() blkcrypto.Profile

	// Slots is the number of keyslots, constant and at least 1; 0 if the engine is
	// Slotless.
	Slots() int

	// Program puts a key into a slot, over whatever is there. key is valid
	// until Program returns. After an error the content of the slot is
	// unknown; the manager evicts it.
	Program(slot int, c blkcrypto.Config, key []byte) error

	// Evict empties a slot: when it returns nil the key is gone from the
	// engine. Evicting an empty slot succeeds.
	Evict(slot int) error

	// Crypt transforms whole data units from src to dst with the key in slot;
	// dun is the number of the first. dst and src have equal length and are
	// the same memory or do not overlap.
	// dst may be the medium itself: encrypting puts nothing but ciphertext
	// there, not even for a moment.
	Crypt(slot int, d Direction, dun blkcrypto.DUN, dst, src block.Segments) error
}
