// Package soft is the software engine: a programmed slot is a cipher whose
// expanded keys lie in locked memory. It is the default inline engine and
// the fallback of every mapped device.
package soft

import (
	"errors"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/cipher"
	"keyway/keyslot"
)

// DefaultSlots is the number of slots of an engine for a device: what UFS
// controllers have.
const DefaultSlots = 32

// FallbackSlots is the number of slots of a fallback: blk-crypto-fallback's
// default. A slot costs nothing until it is programmed.
const FallbackSlots = 100

// Engine is the software engine.
type Engine struct {
	name     string
	profile  blkcrypto.Profile
	slots    []programmed
	reserves reserves
}

// programmed is what a keyslot holds: nothing, or a cipher. The manager keeps
// Program and Evict away from slots in use, so a plain read would do; the
// pointer is atomic to let the race detector prove that.
type programmed struct {
	cipher atomic.Pointer[cipher.Units]
}

// New returns an engine with n slots that takes every mode that software has.
func New(name string, n int) *Engine {
	e := &Engine{name: name, slots: make([]programmed, n)}
	for _, c := range blkcrypto.AllRaw().Configs() {
		if cipher.Supported(c.Mode) {
			e.profile.Add(c)
		}
	}
	return e
}

var _ keyslot.Loser = (*Engine)(nil)

// Name says which engine this is.
func (e *Engine) Name() string { return e.name }

// Profile is every config with a raw key whose mode has a cipher.
func (e *Engine) Profile() blkcrypto.Profile { return e.profile }

// Slots is the number of keyslots.
func (e *Engine) Slots() int { return len(e.slots) }

// Program expands key into the slot.
func (e *Engine) Program(slot int, c blkcrypto.Config, key []byte) error {
	made, err := e.expand(slot, c, key)
	if err != nil {
		return err
	}
	e.put(slot, made)
	return nil
}

// Evict wipes the slot. A spare that was used has the memory first.
func (e *Engine) Evict(slot int) error {
	e.put(slot, nil)
	e.refill()
	return nil
}

// Lose wipes all slots, as a reset of a controller would.
func (e *Engine) Lose() {
	for i := range e.slots {
		e.put(i, nil)
	}
}

func (e *Engine) put(slot int, c *cipher.Units) {
	if old := e.slots[slot].cipher.Swap(c); old != nil {
		old.Wipe()
	}
}

// ErrEmpty answers the use of a slot that holds no key.
var ErrEmpty = errors.New("the keyslot is empty")

// Crypt transforms whole data units; they may lie across segments.
//
// Hot: no allocation where dst and src are one slice each.
func (e *Engine) Crypt(slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	c := e.slots[slot].cipher.Load()
	if c == nil {
		return ErrEmpty
	}
	return c.Crypt(bool(d), dun, dst, src)
}
