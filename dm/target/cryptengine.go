package target

import (
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dmcrypt"
	"keyway/internal/arena"
	"keyway/keyslot"
)

// rowCipher is an engine with one keyslot that stands in front of the device of one
// row, and is asked by nobody else: a cipher of dm-crypt that no other engine has.
// So requests, evictions and receipts are as they are with engines.
type rowCipher struct {
	spec   dmcrypt.Spec
	config blkcrypto.Config
	cipher atomic.Pointer[dmcrypt.Cipher] // nil: no key
}

// Name says which cipher it is; it is a place in receipts of evictions.
func (e *rowCipher) Name() string { return "crypt target, " + e.spec.String() }

// Profile is the one config of the row.
func (e *rowCipher) Profile() (p blkcrypto.Profile) {
	p.Add(e.config)
	return p
}

// Slots is the one keyslot.
func (e *rowCipher) Slots() int { return 1 }

// Program expands the key.
func (e *rowCipher) Program(_ int, c blkcrypto.Config, key []byte) error {
	o := dmcrypt.Options{SectorSize: c.DataUnitSize, LargeIV: c.Numbering == blkcrypto.ByUnit}
	made, err := dmcrypt.New(e.spec, o, key)
	if err != nil {
		return err
	}
	e.put(made)
	return nil
}

// Evict wipes the cipher.
func (e *rowCipher) Evict(int) error {
	e.put(nil)
	return nil
}

func (e *rowCipher) put(c *dmcrypt.Cipher) {
	if old := e.cipher.Swap(c); old != nil {
		old.Wipe()
	}
}

// Crypt transforms whole sectors. Segments may cut them.
//
// Hot: no allocation where dst and src are one slice each.
func (e *rowCipher) Crypt(_ int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	c := e.cipher.Load()
	if c == nil {
		return blkcrypto.ErrKeyEvicted
	}
	unit := e.config.DataUnitSize
	if src.Len()&(unit-1) != 0 || dst.Len() != src.Len() {
		return block.ErrInvalid
	}
	at, step := dun[0], uint64(unit>>9)
	if e.config.Numbering == blkcrypto.ByUnit {
		at *= step
	}
	from, ok := src.Contiguous()
	to, ok2 := dst.Contiguous()
	if ok && ok2 {
		run(c, d, to, from, at)
		return nil
	}
	bounce := arena.Get(unit)
	defer bounce.Put()
	for ; src.Len() > 0; at += step {
		b := bounce.Bytes()
		src.Slice(0, unit).CopyTo(b)
		run(c, d, b, b, at)
		dst.Slice(0, unit).CopyFrom(b)
		src, dst = src.Slice(unit, src.Len()-unit), dst.Slice(unit, dst.Len()-unit)
	}
	return nil
}

func run(c *dmcrypt.Cipher, d keyslot.Direction, dst, src []byte, at uint64) {
	if d == keyslot.Encrypt {
		c.Encrypt(dst, src, at)
	} else {
		c.Decrypt(dst, src, at)
	}
}
