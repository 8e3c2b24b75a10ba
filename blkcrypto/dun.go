package blkcrypto

import (
	"encoding/binary"
	"math/bits"
)

// A DUN is the number of a data unit: 256 bits, limb 0 least significant.
// Arithmetic is modulo 2^256, with carry through all limbs.
type DUN [4]uint64

// DUN64 returns n as a DUN.
func DUN64(n uint64) DUN { return DUN{n} }

// Add returns d+n, and whether the sum wrapped past 2^256.
func (d DUN) Add(n uint64) (sum DUN, wrapped bool) {
	var c uint64
	d[0], c = bits.Add64(d[0], n, 0)
	for i := 1; i < len(d) && c != 0; i++ {
		d[i], c = bits.Add64(d[i], 0, c)
	}
	return d, c != 0
}

// Sub returns d-n modulo 2^256: the inverse of Add.
func (d DUN) Sub(n uint64) DUN {
	var b uint64
	d[0], b = bits.Sub64(d[0], n, 0)
	for i := 1; i < len(d) && b != 0; i++ {
		d[i], b = bits.Sub64(d[i], 0, b)
	}
	return d
}

// Bytes is the number of bytes that d needs, at least 1.
func (d DUN) Bytes() int {
	for i := len(d) - 1; i >= 0; i-- {
		if d[i] != 0 {
			return 8*i + (bits.Len64(d[i])+7)/8
		}
	}
	return 1
}

// PutIV writes the first len(b) bytes of d, little-endian, to b: the IV of a
// mode whose IV size is len(b), at most 32.
func (d DUN) PutIV(b []byte) {
	var le [32]byte
	for i, limb := range d {
		binary.LittleEndian.PutUint64(le[8*i:], limb)
	}
	copy(b, le[:])
}

// IsContiguous reports whether next is the number of the data unit that
// follows n units from d on. A run that wraps through zero is not contiguous
// even where the numbers agree.
func (d DUN) IsContiguous(n uint64, next DUN) bool {
	sum, wrapped := d.Add(n)
	return !wrapped && sum == next
}
