package aes

import (
	"encoding/binary"
	"math/bits"
)

// Bitsliced AES (FIPS 197) on four blocks at once, without tables and without
// branches on data: its time does not depend on key or text.
//
// The state is eight words, plane[b] holding bit b of all 64 bytes. Byte (row,
// column) of block k is at bit 16*row + 4*column + k, so that ShiftRows rotates
// 16-bit lanes and MixColumns rotates whole words.

const (
	Lanes     = 4                 // blocks per State
	StateSize = Lanes * BlockSize // bytes per State
)

// State is four blocks, or a round key four times, as bit planes.
type State [8]uint64

// Slice brings 64 bytes, four blocks in a row, into planes.
func (q *State) Slice(p *[StateSize]byte) {
	for k := range Lanes {
		b := p[BlockSize*k:]
		q[k] = spread(b[0:]) | spread(b[8:])<<8
		q[k+Lanes] = spread(b[4:]) | spread(b[12:])<<8
	}
	q.transpose()
}

// Unslice is the inverse of Slice.
func (q State) Unslice(p *[StateSize]byte) {
	q.transpose()
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
func (q *State) transpose() {
	swap := func(a, b *uint64, mask uint64, n uint) {
		t := (*a>>n ^ *b) & mask
		*a ^= t << n
		*b ^= t
	}
	for i := 0; i < 8; i += 2 {
		swap(&q[i], &q[i+1], 0x5555555555555555, 1)
	}
	for _, i := range [...]int{0, 1, 4, 5} {
		swap(&q[i], &q[i+2], 0x3333333333333333, 2)
	}
	for i := range 4 {
		swap(&q[i], &q[i+4], 0x0f0f0f0f0f0f0f0f, 4)
	}
}

func (q *State) add(k *State) {
	for i := range q {
		q[i] ^= k[i]
	}
}

// subBytes applies the S-box, by the 113-gate circuit of Boyar and Peralta ("A
// small depth-16 circuit for the AES S-box", 2011; names as there).
func (q *State) subBytes() {
	x0, x1, x2, x3, x4, x5, x6, x7 := q[7], q[6], q[5], q[4], q[3], q[2], q[1], q[0]

	y14 := x3 ^ x5
	y13 := x0 ^ x6
	y9 := x0 ^ x3
	y8 := x0 ^ x5
	t0 := x1 ^ x2
	y1 := t0 ^ x7
	y4 := y1 ^ x3
	y12 := y13 ^ y14
	y2 := y1 ^ x0
	y5 := y1 ^ x6
	y3 := y5 ^ y8
	t1 := x4 ^ y12
	y15 := t1 ^ x5
	y20 := t1 ^ x1
	y6 := y15 ^ x7
	y10 := y15 ^ t0
	y11 := y20 ^ y9
	y7 := x7 ^ y11
	y17 := y10 ^ y11
	y19 := y10 ^ y8
	y16 := t0 ^ y11
	y21 := y13 ^ y16
	y18 := x0 ^ y16

	t2 := y12 & y15
	t4 := y3&y6 ^ t2
	t6 := y4&x7 ^ t2
	t7 := y13 & y16
	t9 := y5&y1 ^ t7
	t11 := y2&y7 ^ t7
	t12 := y9 & y11
	t14 := y14&y17 ^ t12
	t16 := y8&y10 ^ t12
	t21 := t4 ^ t14 ^ y20
	t22 := t6 ^ t16 ^ y19
	t23 := t9 ^ t14 ^ y21
	t24 := t11 ^ t16 ^ y18
	t25 := t21 ^ t22
	t26 := t21 & t23
	t27 := t24 ^ t26
	t29 := t25&t27 ^ t22
	t30 := t23 ^ t24
	t31 := t22 ^ t26
	t33 := t31&t30 ^ t24
	t34 := t23 ^ t33
	t35 := t27 ^ t33
	t36 := t24 & t35
	t37 := t36 ^ t34
	t38 := t27 ^ t36
	t40 := t25 ^ t29&t38
	t41 := t40 ^ t37
	t42 := t29 ^ t33
	t43 := t29 ^ t40
	t44 := t33 ^ t37
	t45 := t42 ^ t41
	z0 := t44 & y15
	z1 := t37 & y6
	z2 := t33 & x7
	z3 := t43 & y16
	z4 := t40 & y1
	z5 := t29 & y7
	z6 := t42 & y11
	z7 := t45 & y17
	z8 := t41 & y10
	z9 := t44 & y12
	z10 := t37 & y3
	z11 := t33 & y4
	z12 := t43 & y13
	z13 := t40 & y5
	z14 := t29 & y2
	z15 := t42 & y9
	z16 := t45 & y14
	z17 := t41 & y8

	t46 := z15 ^ z16
	t48 := z5 ^ z13
	t53 := z0 ^ z3
	t54 := z6 ^ z7
	t57 := z2 ^ z12 ^ t53
	t58 := z4 ^ t46
	t59 := z3 ^ t54
	t62 := z7 ^ z8 ^ t58
	t63 := z9 ^ z10 ^ t58
	t64 := z4 ^ t59
	t65 := z14 ^ t57 ^ t62
	t66 := z1 ^ t63
	t67 := t64 ^ t65
	s3 := t53 ^ t66
	q[7] = t59 ^ t63
	q[6] = t64 ^ ^s3
	q[5] = z16 ^ z17 ^ ^t67
	q[4] = s3
	q[3] = z2 ^ z5 ^ t66
	q[2] = z10 ^ z11 ^ t65
	q[1] = z12 ^ t48 ^ ^t62
	q[0] = t48 ^ ^(t46 ^ t57)
}

// invSubBytes applies the inverse S-box. With S = A∘inversion, A affine, it is
// A⁻¹∘S∘A⁻¹: the same circuit between two cheap linear steps.
func (q *State) invSubBytes() {
	q.invAffine()
	q.subBytes()
	q.invAffine()
}

func (q *State) invAffine() {
	p := *q
	for i := range q {
		q[i] = p[(i+2)&7] ^ p[(i+5)&7] ^ p[(i+7)&7]
	}
	q[0], q[2] = ^q[0], ^q[2] // the constant 0x05
}

func (q *State) shiftRows() {
	for i, x := range q {
		q[i] = x&0xffff |
			x>>4&0x0fff0000 | x<<12&0xf0000000 |
			x>>8&0x00ff00000000 | x<<8&0xff0000000000 |
			x>>12&0x000f000000000000 | x<<4&0xfff0000000000000
	}
}

func (q *State) invShiftRows() {
	for i, x := range q {
		q[i] = x&0xffff |
			x<<4&0xfff00000 | x>>12&0x000f0000 |
			x>>8&0x00ff00000000 | x<<8&0xff0000000000 |
			x<<12&0xf000000000000000 | x>>4&0x0fff000000000000
	}
}

// double multiplies each byte by x modulo the AES polynomial.
func (q *State) double() {
	*q = State{q[7], q[0] ^ q[7], q[1], q[2] ^ q[7], q[3] ^ q[7], q[4], q[5], q[6]}
}

func (q *State) mixColumns() {
	var next, d State // next: the row below; d: this row plus the row below
	for i, x := range q {
		next[i] = bits.RotateLeft64(x, 48)
		d[i] = x ^ next[i]
	}
	far := d // the sum of the other two rows
	d.double()
	for i := range q {
		q[i] = d[i] ^ next[i] ^ bits.RotateLeft64(far[i], 32)
	}
}

// invMixColumns: the inverse matrix is that of MixColumns times one that adds to
// each row four times (the row plus the row two below).
func (q *State) invMixColumns() {
	var p State
	for i, x := range q {
		p[i] = x ^ bits.RotateLeft64(x, 32)
	}
	p.double()
	p.double()
	q.add(&p)
	q.mixColumns()
}

// Encrypt encrypts the four blocks under the round keys that SliceKeys made.
func (q *State) Encrypt(rk []State) {
	last := len(rk) - 1
	q.add(&rk[0])
	for r := 1; r < last; r++ {
		q.subBytes()
		q.shiftRows()
		q.mixColumns()
		q.add(&rk[r])
	}
	q.subBytes()
	q.shiftRows()
	q.add(&rk[last])
}

// Decrypt is the inverse of Encrypt, with the same round keys.
func (q *State) Decrypt(rk []State) {
	last := len(rk) - 1
	q.add(&rk[last])
	for r := last - 1; r > 0; r-- {
		q.invShiftRows()
		q.invSubBytes()
		q.add(&rk[r])
		q.invMixColumns()
	}
	q.invShiftRows()
	q.invSubBytes()
	q.add(&rk[0])
}

// Wipe clears a state that held key bytes; the compiler does not remove it.
//
//go:noinline
func (q *State) Wipe() { *q = State{} }

// SliceKeys writes to rk the round keys of the schedule w, which Expand made,
// each four times; len(w) is 16*len(rk).
func SliceKeys(rk []State, w []byte) {
	var four [StateSize]byte
	for r := range rk {
		for k := range Lanes {
			copy(four[BlockSize*k:], w[BlockSize*r:][:BlockSize])
		}
		rk[r].Slice(&four)
	}
	wipe(four[:])
}
