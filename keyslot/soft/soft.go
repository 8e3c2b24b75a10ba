// Package soft is the software engine: a programmed slot is a cipher whose
// expanded keys lie in locked memory. It is the default inline engine and
// the fallback of every mapped device.
package soft

import (
	"errors"
	"fmt"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/arena"
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
	name    string
	profile blkcrypto.Profile
	slots   []programmed
}

// programmed is what a keyslot holds: nothing, or a cipher. The manager keeps
// Program and Evict away from slots in use, so a plain read would do; the
// pointer is atomic to let the race detector prove that.
type programmed struct {
	cipher atomic.Pointer[unitCipher]
}

type unitCipher struct {
	cipher.Cipher
	config blkcrypto.Config
	unit   int // bytes
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

var _ keyslot.Engine = (*Engine)(nil)

// Name says which engine this is.
func (e *Engine) Name() string { return e.name }

// Profile is every config with a raw key whose mode has a cipher.
func (e *Engine) Profile() blkcrypto.Profile { return e.profile }

// Slots is the number of keyslots.
func (e *Engine) Slots() int { return len(e.slots) }

// Program expands key into the slot.
func (e *Engine) Program(slot int, c blkcrypto.Config, key []byte) error {
	if c.KeyType != blkcrypto.Raw {
		return fmt.Errorf("a %v key has no software form", c.KeyType)
	}
	made, err := cipher.New(c.Mode, c.DataUnitSize, key)
	if err != nil {
		return err
	}
	e.put(slot, &unitCipher{made, c, c.DataUnitSize})
	return nil
}

// Evict wipes the slot.
func (e *Engine) Evict(slot int) error {
	e.put(slot, nil)
	return nil
}

func (e *Engine) put(slot int, c *unitCipher) {
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
	if src.Len()&(c.unit-1) != 0 || dst.Len() != src.Len() {
		return fmt.Errorf("%w: %d bytes into %d are not whole data units of %d", block.ErrInvalid, src.Len(), dst.Len(), c.unit)
	}
	from, ok := src.Contiguous()
	to, ok2 := dst.Contiguous()
	if ok && ok2 {
		c.run(d, dun, to, from)
		return nil
	}
	return c.scattered(d, dun, dst, src)
}

// run transforms contiguous data units. The ciphers number them one by one;
// where the config does otherwise each unit is a run of its own.
func (c *unitCipher) run(d keyslot.Direction, dun blkcrypto.DUN, dst, src []byte) {
	if c.config.Numbering == blkcrypto.ByUnit {
		c.transform(d, dun, dst, src)
		return
	}
	for n := c.unit; len(src) > 0; src, dst = src[n:], dst[n:] {
		c.transform(d, dun, dst[:n], src[:n])
		dun = c.config.DUN(dun, int64(n))
	}
}

func (c *unitCipher) transform(d keyslot.Direction, dun blkcrypto.DUN, dst, src []byte) {
	if d == keyslot.Encrypt {
		c.Encrypt(dst, src, dun)
	} else {
		c.Decrypt(dst, src, dun)
	}
}

// scattered takes the longest run of whole data units that is contiguous on
// both sides, or gathers the one unit that is not.
func (c *unitCipher) scattered(d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	bounce := arena.Get(c.unit)
	defer bounce.Put()
	for src.Len() > 0 {
		from, to := src.Front(), dst.Front()
		n := min(len(from), len(to)) &^ (c.unit - 1)
		if n > 0 {
			c.run(d, dun, to[:n], from[:n])
		} else {
			n = c.unit
			b := bounce.Bytes()
			src.Slice(0, n).CopyTo(b)
			c.run(d, dun, b, b)
			dst.Slice(0, n).CopyFrom(b)
		}
		dun = c.config.DUN(dun, int64(n))
		src, dst = src.Slice(n, src.Len()-n), dst.Slice(n, dst.Len()-n)
	}
	return nil
}
