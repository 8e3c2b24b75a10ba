package cipher

import (
	"fmt"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/arena"
)

// Units is a cipher with its config: what an engine does with the data of a
// request, which may lie in pieces.
type Units struct {
	Cipher
	Config blkcrypto.Config

	splitFrom int // bytes; 0: never
}

// NewUnits expands key for config c, whose KeyType is Raw.
func NewUnits(c blkcrypto.Config, key []byte) (*Units, error) {
	if c.KeyType != blkcrypto.Raw {
		return nil, fmt.Errorf("a %v key has no software form", c.KeyType)
	}
	made, err := New(c.Mode, c.DataUnitSize, key)
	if err != nil {
		return nil, err
	}
	return &Units{made, c, splitFrom(c.Mode)}, nil
}

// Crypt transforms whole data units from src to dst, which have equal length and
// are the same memory or do not overlap. They may lie across segments. dun is the
// number of the first.
//
// Hot: no allocation where dst and src are one slice each.
func (u *Units) Crypt(encrypt bool, dun blkcrypto.DUN, dst, src block.Segments) error {
	unit := u.Config.DataUnitSize
	if src.Len()&(unit-1) != 0 || dst.Len() != src.Len() {
		return fmt.Errorf("%w: %d bytes into %d are not whole data units of %d", block.ErrInvalid, src.Len(), dst.Len(), unit)
	}
	from, ok := src.Contiguous()
	to, ok2 := dst.Contiguous()
	if ok && ok2 {
		u.run(encrypt, dun, to, from)
		return nil
	}
	return u.scattered(encrypt, dun, dst, src)
}

// run transforms contiguous data units.
func (u *Units) run(encrypt bool, dun blkcrypto.DUN, dst, src []byte) {
	if u.splitFrom > 0 && len(src) >= u.splitFrom && splitting.CompareAndSwap(false, true) {
		defer splitting.Store(false)
		u.split(encrypt, dun, dst, src)
		return
	}
	u.one(encrypt, dun, dst, src)
}

// one transforms contiguous data units without the help of others. Most are numbered
// one by one, those of dm-crypt and LUKS2 by the sectors in them.
func (u *Units) one(encrypt bool, dun blkcrypto.DUN, dst, src []byte) {
	switch {
	case u.Config.Numbering == blkcrypto.BySector && encrypt:
		u.Cipher.(Stepper).EncryptStep(dst, src, dun, u.step())
	case u.Config.Numbering == blkcrypto.BySector:
		u.Cipher.(Stepper).DecryptStep(dst, src, dun, u.step())
	case encrypt:
		u.Encrypt(dst, src, dun)
	default:
		u.Decrypt(dst, src, dun)
	}
}

// step is that from one unit's number to the next's.
func (u *Units) step() uint64 { return uint64(u.Config.DataUnitSize) >> 9 }

// scattered takes the longest run of whole data units that is contiguous on
// both sides, or gathers the one unit that is not.
func (u *Units) scattered(encrypt bool, dun blkcrypto.DUN, dst, src block.Segments) error {
	unit := u.Config.DataUnitSize
	bounce := arena.Get(unit)
	defer bounce.Put()
	for src.Len() > 0 {
		from, to := src.Front(), dst.Front()
		n := min(len(from), len(to)) &^ (unit - 1)
		if n > 0 {
			u.run(encrypt, dun, to[:n], from[:n])
		} else {
			n = unit
			b := bounce.Bytes()
			src.Slice(0, n).CopyTo(b)
			u.run(encrypt, dun, b, b)
			dst.Slice(0, n).CopyFrom(b)
		}
		dun = u.Config.DUN(dun, int64(n))
		src, dst = src.Slice(n, src.Len()-n), dst.Slice(n, dst.Len()-n)
	}
	return nil
}
