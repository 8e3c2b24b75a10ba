// Command _asm writes the amd64 assembly of package argon2: the mixing of two
// blocks.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	row   = 128 // bytes: sixteen words
	size  = 1024
	lines = size / 64
)

// A state is what the permutation works on, twice side by side: a, b, c and d of
// BLAKE2's matrix, two registers of four words each.
type state struct{ a, b, c, d [2]VecPhysical }

var (
	start        = state{[2]VecPhysical{Y0, Y1}, [2]VecPhysical{Y2, Y3}, [2]VecPhysical{Y4, Y5}, [2]VecPhysical{Y6, Y7}}
	temp         = [2]VecPhysical{Y8, Y9}
	rot24, rot16 = Y10, Y11
)

func main() {
	ConstraintExpr("amd64,!purego")
	by24 := rotation("rotate24", 3)
	by16 := rotation("rotate16", 2)
	constants := func() {
		VMOVDQU(by24, rot24)
		VMOVDQU(by16, rot16)
	}

	TEXT("mixFirstAVX2", 0, "func(work, prev, ref, old *[128]uint64) uint64")
	Pragma("noescape")
	Doc("mixFirstAVX2 is mixFirstGeneric, with four columns for its two.")
	work, prev, ref := Load(Param("work"), GP64()), Load(Param("prev"), GP64()), Load(Param("ref"), GP64())
	old := Load(Param("old"), GP64())
	constants()
	for r := 0; r < 8; r += 2 {
		s := start
		for i := range 2 {
			for j, v := range []VecPhysical{s.a[i], s.b[i], s.c[i], s.d[i]} {
				at := (r+i)*row + 32*j
				VMOVDQU(Mem{Base: prev, Disp: at}, v)
				VPXOR(Mem{Base: ref, Disp: at}, v, v)
			}
		}
		s.quarters()
		s.turnRows(0x93, 0x39)
		s.quarters()
		s.turnRows(0x39, 0x93)
		for i := range 2 {
			for j, v := range []VecPhysical{s.a[i], s.b[i], s.c[i], s.d[i]} {
				VMOVDQU(v, Mem{Base: work, Disp: (r+i)*row + 32*j})
			}
		}
	}
	s := columns(work, 0)
	for i, v := range s.rows() {
		VMOVDQU(v, Mem{Base: work, Disp: i * row})
	}
	word := GP64()
	VMOVQ(s.a[0].AsX(), word)
	XORQ(Mem{Base: prev}, word)
	XORQ(Mem{Base: ref}, word)
	TESTQ(old, old)
	JZ(LabelRef("end"))
	XORQ(Mem{Base: old}, word)
	Label("end")
	Store(word, ReturnIndex(0))
	VZEROALL()
	RET()

	TEXT("mixLastAVX2", 0, "func(dst, work, prev, ref, old, next *[128]uint64)")
	Pragma("noescape")
	Doc("mixLastAVX2 is mixLastGeneric after mixFirstAVX2, and fetches next into the cache.")
	dst, work := Load(Param("dst"), GP64()), Load(Param("work"), GP64())
	prev, ref = Load(Param("prev"), GP64()), Load(Param("ref"), GP64())
	old, next := Load(Param("old"), GP64()), Load(Param("next"), GP64())
	for i := range lines {
		PREFETCHT0(Mem{Base: next, Disp: 64 * i})
	}
	constants()
	write := func(rows []VecPhysical, at int, add bool) {
		for i, v := range rows {
			VPXOR(Mem{Base: prev, Disp: i*row + at}, v, v)
			VPXOR(Mem{Base: ref, Disp: i*row + at}, v, v)
			if add {
				VPXOR(Mem{Base: old, Disp: i*row + at}, v, v)
			}
			VMOVDQU(v, Mem{Base: dst, Disp: i*row + at})
		}
	}
	last := func(add bool) {
		for at := 32; at < row; at += 32 {
			s := columns(work, at)
			write(s.rows(), at, add)
		}
		for i, v := range start.rows() {
			VMOVDQU(Mem{Base: work, Disp: i * row}, v)
		}
		write(start.rows(), 0, add)
		VZEROALL()
		RET()
	}
	TESTQ(old, old)
	JNZ(LabelRef("add"))
	last(false)
	Label("add")
	last(true)
	Generate()
}

// rotation is the shuffle that rotates words to the right by n bytes.
func rotation(name string, n int) Mem {
	m := GLOBL(name, 8|16) // RODATA|NOPTR
	for i := range 32 {
		DATA(i, U8(i&8|(i+n)&7))
	}
	return m
}

// rows are the registers in the order of the rows that columns loads them from.
func (s state) rows() []VecPhysical {
	return []VecPhysical{s.a[0], s.a[1], s.b[0], s.b[1], s.c[0], s.c[1], s.d[0], s.d[1]}
}

// columns permutes two columns, pairs of words at 32 bytes of each row. A register
// has the pair of the first column in its lower half, and of the second in the upper.
func columns(work Register, at int) state {
	s := start
	for i, v := range s.rows() {
		VMOVDQU(Mem{Base: work, Disp: i*row + at}, v)
	}
	s.quarters()
	// As in turnRows; d only has its halves swapped.
	s.a = shift(s.a, 1)
	s.c = shift(s.c, 0)
	s.d[0], s.d[1] = s.d[1], s.d[0]
	s.quarters()
	s.a = shift(s.a, 0)
	s.c = shift(s.c, 1)
	s.d[0], s.d[1] = s.d[1], s.d[0]
	return s
}

// shift moves the four words that a column has in two registers up by one place,
// in a circle, if from is 0, and down if it is 1. The registers trade their roles.
func shift(v [2]VecPhysical, from int) [2]VecPhysical {
	x, y := v[from], v[1-from]
	VPALIGNR(U8(8), x, y, temp[0]) // the upper word of x, the lower of y
	VPALIGNR(U8(8), y, x, x)
	VMOVDQA(temp[0], y)
	return [2]VecPhysical{y, x}
}

// turnRows brings the words of the diagonals below each other, or back. b, which is
// computed last, stays where it is: the others are turned meanwhile.
func (s state) turnRows(a, c uint8) {
	for i := range 2 {
		VPERMQ(U8(a), s.a[i], s.a[i])
		VPERMQ(U8(0x4e), s.d[i], s.d[i])
		VPERMQ(U8(c), s.c[i], s.c[i])
	}
}

// quarters is four times the round function of BLAKE2b with multiplications, in each
// of two registers.
func (s state) quarters() {
	each := func(f func(i int)) { f(0); f(1) }
	add := func(x, y [2]VecPhysical) { // x += y + 2 * low half of x * low half of y
		each(func(i int) { VPMULUDQ(x[i], y[i], temp[i]) })
		each(func(i int) { VPADDQ(y[i], x[i], x[i]) })
		each(func(i int) { VPADDQ(temp[i], temp[i], temp[i]) })
		each(func(i int) { VPADDQ(temp[i], x[i], x[i]) })
	}
	xor := func(x, y [2]VecPhysical) { each(func(i int) { VPXOR(y[i], x[i], x[i]) }) }
	add(s.a, s.b)
	xor(s.d, s.a)
	each(func(i int) { VPSHUFD(U8(0xb1), s.d[i], s.d[i]) })
	add(s.c, s.d)
	xor(s.b, s.c)
	each(func(i int) { VPSHUFB(rot24, s.b[i], s.b[i]) })
	add(s.a, s.b)
	xor(s.d, s.a)
	each(func(i int) { VPSHUFB(rot16, s.d[i], s.d[i]) })
	add(s.c, s.d)
	xor(s.b, s.c)
	each(func(i int) { VPADDQ(s.b[i], s.b[i], temp[i]) })
	each(func(i int) { VPSRLQ(U8(63), s.b[i], s.b[i]) })
	each(func(i int) { VPXOR(temp[i], s.b[i], s.b[i]) })
}
