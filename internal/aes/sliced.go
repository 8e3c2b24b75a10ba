package aes

import (
	"encoding/binary"
	"math/bits"
)

// Bitsliced AES (FIPS 197) on four blocks at once: numbers of data units, and
// texts whose blocks wait for each other.
//
// The state is eight words, plane[b] holding bit b of all 64 bytes. Byte (row,
// column) of block k is at bit 16*row + 4*column + k, so that ShiftRows rotates
// 16-bit lanes and MixColumns rotates whole words.

const (
	Lanes     = 4                 // blocks per State
	StateSize = Lanes * BlockSize // bytes per State
)

// State is four blocks, or a round key four times, as bit planes. Where many
// blocks are at hand, Wide takes half the time.
type State [8]uint64

// Slice brings 64 bytes, four blocks in a row, into planes.
func (q *State) Slice(p *[StateSize]byte) {
	for k := range Lanes {
		b := p[BlockSize*k:]
		q[k] = spread(b[0:]) | spread(b[8:])<<8
		q[k+Lanes] = spread(b[4:]) | spread(b[12:])<<8
	}
	transpose((*[8]uint64)(q))
}

// Unslice is the inverse of Slice. It uses up q.
func (q *State) Unslice(p *[StateSize]byte) {
	transpose((*[8]uint64)(q))
	for k := range Lanes {
		b := p[BlockSize*k:]
		gather(b[0:], q[k])
		gather(b[8:], q[k]>>8)
		gather(b[4:], q[k+Lanes])
		gather(b[12:], q[k+Lanes]>>8)
	}
}

// spread puts a column's four bytes on the even bytes of a word.
func spread(p []byte) uint64 {
	x := uint64(binary.LittleEndian.Uint32(p))
	x = (x | x<<16) & 0x0000ffff0000ffff
	return (x | x<<8) & 0x00ff00ff00ff00ff
}

func gather(p []byte, x uint64) {
	x &= 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	binary.LittleEndian.PutUint32(p, uint32(x|x>>16))
}

// transpose swaps bit w of each byte of word b with bit b of word w: it is its
// own inverse.
func transpose(q *[8]uint64) {
	x0, x1, x2, x3, x4, x5, x6, x7 := q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7]
	const m1, m2, m4 = 0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f
	x0, x1 = swap(x0, x1, 1, m1)
	x2, x3 = swap(x2, x3, 1, m1)
	x4, x5 = swap(x4, x5, 1, m1)
	x6, x7 = swap(x6, x7, 1, m1)
	x0, x2 = swap(x0, x2, 2, m2)
	x1, x3 = swap(x1, x3, 2, m2)
	x4, x6 = swap(x4, x6, 2, m2)
	x5, x7 = swap(x5, x7, 2, m2)
	q[0], q[4] = swap(x0, x4, 4, m4)
	q[1], q[5] = swap(x1, x5, 4, m4)
	q[2], q[6] = swap(x2, x6, 4, m4)
	q[3], q[7] = swap(x3, x7, 4, m4)
}

// swap swaps the bits of x under mask, moved up by n, with those of y under mask.
func swap(x, y uint64, n uint, mask uint64) (uint64, uint64) {
	t := (x>>n ^ y) & mask
	return x ^ t<<n, y ^ t
}

func (q *State) add(k *State) {
	for i := range q {
		q[i] ^= k[i]
	}
}

func (q *State) sub() {
	q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7] = sub(q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7])
}

func (q *State) invSub() {
	q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7] = invSub(q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7])
}

// shiftRows rotates rows 1 and 3 by a column, then rows 2 and 3 by two.
func shiftRows(x uint64) uint64 {
	x = x&0x0000ffff0000ffff | x>>4&0x0fff00000fff0000 | x<<12&0xf0000000f0000000
	t := (x>>8 ^ x) & 0x00ff00ff00000000
	return x ^ t ^ t<<8
}

func unshiftRows(x uint64) uint64 {
	x = x&0x0000ffff0000ffff | x<<4&0xfff00000fff00000 | x>>12&0x000f0000000f0000
	t := (x>>8 ^ x) & 0x00ff00ff00000000
	return x ^ t ^ t<<8
}

// shiftMixAdd is ShiftRows, MixColumns and AddRoundKey. A byte of MixColumns is
// twice the sum of its row and the next one, plus the next one, plus the other
// two. Doubled, the bits are those one place lower, and at the places of reduce
// also the highest.
func (q *State) shiftMixAdd(k *State) {
	x := shiftRows(q[7])
	high, low := x^bits.RotateLeft64(x, -16), uint64(0)
	for b := range q {
		x := shiftRows(q[b])
		next := bits.RotateLeft64(x, -16)
		sum := x ^ next
		if reduce>>b&1 != 0 {
			low ^= high
		}
		q[b] = low ^ next ^ bits.RotateLeft64(sum, 32) ^ k[b]
		low = sum
	}
}

// mixUnshift is MixColumns and InvShiftRows.
func (q *State) mixUnshift() {
	high, low := q[7]^bits.RotateLeft64(q[7], -16), uint64(0)
	for b, x := range q {
		next := bits.RotateLeft64(x, -16)
		sum := x ^ next
		if reduce>>b&1 != 0 {
			low ^= high
		}
		q[b] = unshiftRows(low ^ next ^ bits.RotateLeft64(sum, 32))
		low = sum
	}
}

// reduce is the AES polynomial without its highest term: where bit 8 of a doubled
// byte goes.
const reduce = 0x1b

// preMix makes MixColumns its own inverse: the inverse matrix is that of
// MixColumns times one that adds to each row four times (the row plus the row
// two below).
func (q *State) preMix() {
	var p State
	for i, x := range q {
		p[i] = x ^ bits.RotateLeft64(x, 32)
	}
	q[0] ^= p[6]
	q[1] ^= p[6] ^ p[7]
	q[2] ^= p[0] ^ p[7]
	q[3] ^= p[1] ^ p[6]
	q[4] ^= p[2] ^ p[6] ^ p[7]
	q[5] ^= p[3] ^ p[7]
	q[6] ^= p[4]
	q[7] ^= p[5]
}

// Encrypt encrypts the four blocks under the round keys that SliceKeys made.
func (q *State) Encrypt(rk []State) {
	last := len(rk) - 1
	q.add(&rk[0])
	for r := 1; r < last; r++ {
		q.sub()
		q.shiftMixAdd(&rk[r])
	}
	q.sub()
	for b, x := range q {
		q[b] = shiftRows(x) ^ rk[last][b]
	}
}

// Decrypt is the inverse of Encrypt, with the same round keys.
func (q *State) Decrypt(rk []State) {
	last := len(rk) - 1
	for b, x := range q {
		q[b] = unshiftRows(x ^ rk[last][b])
	}
	q.invSub()
	for r := last - 1; r > 0; r-- {
		q.add(&rk[r])
		q.preMix()
		q.mixUnshift()
		q.invSub()
	}
	q.add(&rk[0])
}

// Wipe clears a state that held key bytes; the compiler does not remove it.
//
//go:noinline
func (q *State) Wipe() { *q = State{} }

// SliceKeys writes to rk the round keys of the schedule w, which Expand made,
// each four times; len(w) is 16*len(rk). All but the first have the constant of
// the S-box in them.
func SliceKeys(rk []State, w []byte) {
	var four [StateSize]byte
	for r := range rk {
		for k := range Lanes {
			copy(four[BlockSize*k:], w[BlockSize*r:][:BlockSize])
		}
		rk[r].Slice(&four)
		if r > 0 {
			for b := range rk[r] {
				rk[r][b] ^= -(affine >> b & 1) // all ones where the constant has a bit
			}
		}
	}
	wipe(four[:])
}
