package luks

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// areaAlign is where key material begins, in bytes: cryptsetup's choice.
const areaAlign = 4096

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// A span is a run of bytes of the medium.
type span struct{ off, size int64 }

// room finds room for the material of a key of n bytes: where it begins, and its
// size. In LUKS1 each keyslot has its place; it is taken if that is free.
func (h *Header) room(slot, n int) (off, size int64, err error) {
	used, lo, hi := h.used(), 2*h.Size, min(2*h.Size+h.KeyslotsSize, h.place.size)
	size = roundUp(materialSize(n), areaAlign)
	if h.Version == 1 {
		lo, hi = areaAlign, h.end1()
		if h.keyslot(slot) == nil {
			// Readers look at the places of unused keyslots too: they cannot overlap.
			off := h.home1(slot)
			others := h.used1(slot)
			if off >= size1 && off+materialSize(n) <= hi && free(others, span{off, materialSize(n)}) {
				return off, materialSize(n), nil
			}
			used = others
		}
	}
	for at := lo; at+size <= hi; {
		over := firstOver(used, span{at, size})
		if over == nil {
			return at, size, nil
		}
		at = roundUp(over.off+over.size, areaAlign)
	}
	return 0, 0, fmt.Errorf("no %d bytes are free for its key material: %w: remove a key first", size, ErrFull)
}

// used lists what keyslots occupy, from the first byte on; in LUKS1 unused ones too.
func (h *Header) used() []span {
	if h.Version == 1 {
		return h.used1(-1)
	}
	var out []span
	for i := range h.Keyslots {
		out = append(out, span{h.Keyslots[i].Area.Offset, h.Keyslots[i].Area.Size})
	}
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	return out
}

// used1 is used of LUKS1 without one keyslot.
func (h *Header) used1(but int) (out []span) {
	for i := range slots1 {
		if i != but {
			out = append(out, span{h.home1(i), materialSize(h.keySize1())})
		}
	}
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	return out
}

// keySize1 is the bytes of the volume key of LUKS1.
func (h *Header) keySize1() int {
	return int(binary.BigEndian.Uint32(h.luks1.raw[payload1At+4:]))
}

// end1 is where key material of LUKS1 ends at the latest.
func (h *Header) end1() int64 {
	if off := h.Segments[0].Offset; off > 0 {
		return min(off, h.place.size)
	}
	return h.place.size
}

func free(used []span, s span) bool { return firstOver(used, s) == nil }

// firstOver returns the first of used that shares a byte with s.
func firstOver(used []span, s span) *span {
	for i := range used {
		if u := &used[i]; u.size > 0 && u.off < s.off+s.size && s.off < u.off+u.size {
			return u
		}
	}
	return nil
}
