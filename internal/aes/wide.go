package aes

import (
	"encoding/binary"
	"math/bits"
)

// Bitsliced AES (FIPS 197) on sixteen blocks at once: the bulk of the data where
// there are no AES instructions.
//
// With the four rows of the state in words of their own, ShiftRows rotates whole
// words and MixColumns moves nothing, which leaves mostly the S-box.

const (
	WideLanes = 16                    // blocks per Wide
	WideSize  = WideLanes * BlockSize // bytes per Wide
)

// Wide is sixteen blocks, or a round key sixteen times, as bit planes: of each
// row, bit 0 to bit 7. Byte (row, column) of block k is at bit 16*column + k.
type Wide [4][8]uint64

// Slice brings 256 bytes, sixteen blocks in a row, into planes.
func (q *Wide) Slice(p *[WideSize]byte) {
	le := binary.LittleEndian
	for k := range 8 { // with blocks k and k+8, which are neighbours in every column
		a, b := p[BlockSize*k:][:BlockSize], p[BlockSize*(k+8):][:BlockSize]
		// Columns 0 and 2 in one word, 1 and 3 in the other.
		a02, a13 := columns(le.Uint64(a), le.Uint64(a[8:]))
		b02, b13 := columns(le.Uint64(b), le.Uint64(b[8:]))
		q[0][k], q[1][k], q[2][k], q[3][k] = rows(a02, a13, b02, b13)
	}
	for r := range q {
		transpose(&q[r])
	}
}

// Unslice is the inverse of Slice. It uses up q.
func (q *Wide) Unslice(p *[WideSize]byte) {
	le := binary.LittleEndian
	for r := range q {
		transpose(&q[r])
	}
	for k := range 8 {
		a, b := p[BlockSize*k:][:BlockSize], p[BlockSize*(k+8):][:BlockSize]
		a02, a13, b02, b13 := unrows(q[0][k], q[1][k], q[2][k], q[3][k])
		lo, hi := columns(a02, a13)
		le.PutUint64(a, lo)
		le.PutUint64(a[8:], hi)
		lo, hi = columns(b02, b13)
		le.PutUint64(b, lo)
		le.PutUint64(b[8:], hi)
	}
}

// columns swaps the high half of x with the low half of y: it is its own inverse.
func columns(x, y uint64) (uint64, uint64) { return x&(1<<32-1) | y<<32, x>>32 | y&^(1<<32-1) }

// rows sorts the bytes of two blocks by row: each result has, for column 0 to 3,
// the byte of block a and that of block b.
func rows(a02, a13, b02, b13 uint64) (r0, r1, r2, r3 uint64) {
	a02, b02 = swap8(a02, b02) // even rows, odd rows
	a13, b13 = swap8(a13, b13)
	r0, r2 = swap16(a02, a13)
	r1, r3 = swap16(b02, b13)
	return
}

func unrows(r0, r1, r2, r3 uint64) (a02, a13, b02, b13 uint64) {
	a02, a13 = swap16(r0, r2)
	b02, b13 = swap16(r1, r3)
	a02, b02 = swap8(a02, b02)
	a13, b13 = swap8(a13, b13)
	return
}

// swap8 swaps the odd bytes of x with the even ones of y, swap16 likewise pairs of
// bytes.
func swap8(x, y uint64) (uint64, uint64)  { return swap(x, y, 8, 0x00ff00ff00ff00ff) }
func swap16(x, y uint64) (uint64, uint64) { return swap(x, y, 16, 0x0000ffff0000ffff) }

func (q *Wide) sub() {
	for r := range q {
		p := &q[r]
		p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7] = sub(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7])
	}
}

func (q *Wide) invSub() {
	for r := range q {
		p := &q[r]
		p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7] = invSub(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7])
	}
}

// column is one bit of the four rows. Its functions are small enough to be inlined
// and keep it in registers.
type column struct{ r0, r1, r2, r3 uint64 }

func (q *Wide) at(b int) column     { return column{q[0][b], q[1][b], q[2][b], q[3][b]} }
func (q *Wide) set(b int, x column) { q[0][b], q[1][b], q[2][b], q[3][b] = x.r0, x.r1, x.r2, x.r3 }

func (x column) xor(y column) column {
	return column{x.r0 ^ y.r0, x.r1 ^ y.r1, x.r2 ^ y.r2, x.r3 ^ y.r3}
}

// plus adds even to rows 0 and 2 and odd to rows 1 and 3.
func (x column) plus(even, odd uint64) column {
	return column{x.r0 ^ even, x.r1 ^ odd, x.r2 ^ even, x.r3 ^ odd}
}

// sums adds to each row the next one, all is the sum of the rows.
func (x column) sums() column { return column{x.r0 ^ x.r1, x.r1 ^ x.r2, x.r2 ^ x.r3, x.r3 ^ x.r0} }
func (x column) all() uint64  { return x.r0 ^ x.r1 ^ (x.r2 ^ x.r3) }

// shift is ShiftRows.
func (x column) shift() column {
	return column{x.r0, bits.RotateLeft64(x.r1, -16), bits.RotateLeft64(x.r2, -32), bits.RotateLeft64(x.r3, -48)}
}

func (x column) unshift() column {
	return column{x.r0, bits.RotateLeft64(x.r1, 16), bits.RotateLeft64(x.r2, 32), bits.RotateLeft64(x.r3, 48)}
}

// shiftMixAdd is ShiftRows, MixColumns and AddRoundKey. A byte of MixColumns is
// twice the sum of its row and the next one, plus the other three rows. Doubled,
// the bits are those one place lower, and at the places of reduce also
// the highest. In a loop it takes half as long again.
func (q *Wide) shiftMixAdd(k *Wide) {
	high := q.at(7).shift().sums()
	x := q.at(0).shift()
	q.set(0, high.xor(x).plus(x.all(), x.all()).xor(k.at(0)))
	low := x.sums().xor(high)
	x = q.at(1).shift()
	q.set(1, low.xor(x).plus(x.all(), x.all()).xor(k.at(1)))
	low = x.sums()
	x = q.at(2).shift()
	q.set(2, low.xor(x).plus(x.all(), x.all()).xor(k.at(2)))
	low = x.sums().xor(high)
	x = q.at(3).shift()
	q.set(3, low.xor(x).plus(x.all(), x.all()).xor(k.at(3)))
	low = x.sums().xor(high)
	x = q.at(4).shift()
	q.set(4, low.xor(x).plus(x.all(), x.all()).xor(k.at(4)))
	low = x.sums()
	x = q.at(5).shift()
	q.set(5, low.xor(x).plus(x.all(), x.all()).xor(k.at(5)))
	low = x.sums()
	x = q.at(6).shift()
	q.set(6, low.xor(x).plus(x.all(), x.all()).xor(k.at(6)))
	low = x.sums()
	x = q.at(7).shift()
	q.set(7, low.xor(x).plus(x.all(), x.all()).xor(k.at(7)))
}

// addUnmixUnshift is AddRoundKey, InvMixColumns and InvShiftRows. A byte of
// InvMixColumns is twice the sum of its row and the next one, plus the row, plus
// nine times the sum of all rows, plus four times the sum of the row and the one two
// below. The last two are the same in rows 0 and 2, and in rows 1 and 3.
func (q *Wide) addUnmixUnshift(k *Wide) {
	var all, even, odd [8]uint64 // four times what is left of even is in all
	for b := range 8 {
		x := q.at(b).xor(k.at(b))
		q.set(b, x)
		even[b], all[b] = x.r0^x.r2, x.all()
	}
	addTwo(&even, &even, &all)
	for b := range 8 {
		odd[b] = even[b] ^ all[b]
	}
	addFour(&even, &all, &even)
	addFour(&odd, &all, &odd)

	high := q.at(7).sums()
	x := q.at(0)
	q.set(0, high.xor(x).plus(even[0], odd[0]).unshift())
	low := x.sums().xor(high)
	x = q.at(1)
	q.set(1, low.xor(x).plus(even[1], odd[1]).unshift())
	low = x.sums()
	x = q.at(2)
	q.set(2, low.xor(x).plus(even[2], odd[2]).unshift())
	low = x.sums().xor(high)
	x = q.at(3)
	q.set(3, low.xor(x).plus(even[3], odd[3]).unshift())
	low = x.sums().xor(high)
	x = q.at(4)
	q.set(4, low.xor(x).plus(even[4], odd[4]).unshift())
	low = x.sums()
	x = q.at(5)
	q.set(5, low.xor(x).plus(even[5], odd[5]).unshift())
	low = x.sums()
	x = q.at(6)
	q.set(6, low.xor(x).plus(even[6], odd[6]).unshift())
	low = x.sums()
	x = q.at(7)
	q.set(7, low.xor(x).plus(even[7], odd[7]).unshift())
}

// addTwo sets sum to p plus two times q.
func addTwo(sum, p, q *[8]uint64) {
	q7 := q[7]
	sum[0], sum[1], sum[2], sum[3] = p[0]^q7, p[1]^q[0]^q7, p[2]^q[1], p[3]^q[2]^q7
	sum[4], sum[5], sum[6], sum[7] = p[4]^q[3]^q7, p[5]^q[4], p[6]^q[5], p[7]^q[6]
}

// addFour sets sum to p plus four times q.
func addFour(sum, p, q *[8]uint64) {
	q0, q1, q2, q3, q4, q5, q6, q7 := q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7]
	q67 := q6 ^ q7
	sum[0], sum[1], sum[2], sum[3] = p[0]^q6, p[1]^q67, p[2]^q0^q7, p[3]^q1^q6
	sum[4], sum[5], sum[6], sum[7] = p[4]^q2^q67, p[5]^q3^q7, p[6]^q4, p[7]^q5
}

// Encrypt encrypts the sixteen blocks under the round keys that SliceWideKeys made.
func (q *Wide) Encrypt(rk []Wide) {
	last := len(rk) - 1
	for b := range 8 {
		q.set(b, q.at(b).xor(rk[0].at(b)))
	}
	for r := 1; r < last; r++ {
		q.sub()
		q.shiftMixAdd(&rk[r])
	}
	q.sub()
	for b := range 8 {
		q.set(b, q.at(b).shift().xor(rk[last].at(b)))
	}
}

// Decrypt is the inverse of Encrypt, with the same round keys.
func (q *Wide) Decrypt(rk []Wide) {
	last := len(rk) - 1
	for b := range 8 {
		q.set(b, q.at(b).xor(rk[last].at(b)).unshift())
	}
	q.invSub()
	for r := last - 1; r > 0; r-- {
		q.addUnmixUnshift(&rk[r])
		q.invSub()
	}
	for b := range 8 {
		q.set(b, q.at(b).xor(rk[0].at(b)))
	}
}

// Wipe clears a state that held key bytes; the compiler does not remove it.
//
//go:noinline
func (q *Wide) Wipe() { *q = Wide{} }

// SliceWideKeys writes to rk the round keys of the schedule w, which Expand made,
// each sixteen times; len(w) is 16*len(rk). All but the first have the constant
// of the S-box in them.
func SliceWideKeys(rk []Wide, w []byte) {
	const everyColumn = 1<<0 | 1<<16 | 1<<32 | 1<<48
	for i := range rk {
		key := w[BlockSize*i:][:BlockSize]
		for r := range 4 {
			// The row's byte of each column, at the column's sixteen bits.
			row := uint64(key[r]) | uint64(key[4+r])<<16 | uint64(key[8+r])<<32 | uint64(key[12+r])<<48
			if i > 0 {
				row ^= affine * everyColumn
			}
			for b := range 8 {
				rk[i][r][b] = row >> b & everyColumn * 0xffff
			}
		}
	}
}
