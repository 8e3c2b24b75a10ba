package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// A matrix over GF(2) maps a byte: matrix[i] is the image of bit i.
type matrix [8]byte

func (m matrix) of(x byte) (y byte) {
	for i, c := range m {
		if x>>i&1 != 0 {
			y ^= c
		}
	}
	return y
}

// times is m after n.
func (m matrix) times(n matrix) (p matrix) {
	for i, c := range n {
		p[i] = m.of(c)
	}
	return p
}

func (m matrix) inverse() (p matrix) {
	for x := range 256 {
		for i := range p {
			if m.of(byte(x)) == 1<<i {
				p[i] = byte(x)
			}
		}
	}
	return p
}

func linear(f func(byte) byte) (m matrix) {
	for i := range m {
		m[i] = f(1 << i)
	}
	return m
}

// The S-box of SM4 is behind(inverse(front(x) + frontConst)) + behindConst in the
// field of AES. Package sm4xts has the same two and a test of them.
var (
	front  = matrix{0xf6, 0x24, 0x33, 0xfe, 0x42, 0xd4, 0x7a, 0xf4}
	behind = matrix{0xfa, 0xb6, 0xdc, 0xb3, 0x4a, 0x51, 0xed, 0x7c}
)

// affine is the linear part of the AES S-box (FIPS 197, section 5.1.1).
var affine = linear(func(x byte) (y byte) {
	for _, n := range []int{0, 1, 2, 3, 4} {
		y ^= x<<n | x>>(8-n)
	}
	return y
})

// The two parts of the linear transformation of SM4 that act on single bytes,
// see rounds.go.
var (
	rotated = linear(func(x byte) byte { return x<<2 | x>>6 })
	shifted = linear(func(x byte) byte { return x ^ x>>6 })
)

// table writes words as read-only data.
func table(name string, words []uint64) Mem {
	m := GLOBL(name, 8|16) // RODATA|NOPTR
	for i, x := range words {
		DATA(8*i, U64(x))
	}
	return m
}

// lanes writes 16 bytes for each of two 128-bit lanes.
func lanes(name string, f func(i int) byte) Mem {
	var lo, hi uint64
	for i := range 8 {
		lo |= uint64(f(i)) << (8 * i)
		hi |= uint64(f(i+8)) << (8 * i)
	}
	return table(name, []uint64{lo, hi, lo, hi})
}

// nibbles is a matrix as two tables for VPSHUFB: of the low and of the high four
// bits of a byte.
type nibbles struct{ lo, hi Mem }

func (m matrix) nibbles(name string) nibbles {
	return nibbles{
		lanes(name+"Low", func(i int) byte { return m.of(byte(i)) }),
		lanes(name+"High", func(i int) byte { return m.of(byte(i << 4)) }),
	}
}

// gfni is a matrix as VGF2P8AFFINEQB takes it: the byte that makes bit i of the
// result is byte 7-i.
func (m matrix) gfni(name string) Mem {
	var x uint64
	for i := range 8 {
		for j, c := range m {
			x |= uint64(c>>i&1) << (8*(7-i) + j)
		}
	}
	return table(name, []uint64{x, x, x, x})
}

// constants of all functions. What depends on no width is 32 bytes long: the
// narrow functions take its first half.
type constants struct {
	mask, poly, low       Mem
	unshift, rot16, rot24 Mem // see rounds.go
	front, back, v, w     nibbles
	gFront, gBack, gV, gW Mem
	lefts, rights         Mem // of eight blocks: shift counts
}

func newConstants() (c constants) {
	behindAES := behind.times(affine.inverse())
	c.mask = lanes("lowNibbles", func(int) byte { return 15 })
	c.poly = table("poly", []uint64{0x87, 0, 0x87, 0, 0x87, 0, 0x87, 0})
	c.low = table("lowHalf", []uint64{^uint64(0), 0, ^uint64(0), 0})
	c.unshift = lanes("unshiftRows", func(i int) byte { return byte(4*((i/4-i%4)&3) + i%4) })
	// The first byte of a word is the most significant one.
	c.rot16 = lanes("rotate16", func(i int) byte { return byte(i&^3 + (i+2)&3) })
	c.rot24 = lanes("rotate24", func(i int) byte { return byte(i&^3 + (i+3)&3) })
	c.front = front.nibbles("front")
	c.back = front.inverse().nibbles("back")
	c.v = front.times(rotated).times(behindAES).nibbles("rotatedBytes")
	c.w = front.times(shifted).times(behindAES).nibbles("shiftedBytes")
	c.gFront = front.gfni("frontMatrix")
	c.gBack = front.inverse().gfni("backMatrix")
	c.gV = front.times(rotated).times(behind).gfni("rotatedMatrix")
	c.gW = front.times(shifted).times(behind).gfni("shiftedMatrix")
	var left, right []uint64
	for i := range uint64(8) {
		left = append(left, i, i)
		right = append(right, 64-i, 64-i)
	}
	c.lefts, c.rights = table("left", left), table("right", right)
	return c
}
