// Command _asm writes the amd64 assembly of package adiantum.
//
// chacha.go has the stream and its keys, nh.go the hash. Both are written once for
// two vector widths: a lane of 32 bits is one block of the stream, or one data unit
// when keys are made, so that a row of ChaCha's state is a register and the rounds
// need no shuffles.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64,!purego")
	for _, w := range []*width{
		{"AVX2", 32, map[string]Mem{}},
		{"AVX512", 64, map[string]Mem{}},
	} {
		w.hash("In", true)
		w.hash("Out", false)
		w.subkeys()
		w.subkeyPair()
		if w.bytes == 32 {
			w.stream256()
		} else {
			w.stream512()
		}
	}
	Generate()
}

// width is a vector width.
type width struct {
	name  string
	bytes int
	made  map[string]Mem // constants
}

var (
	ymm = []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	zmm = []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}
	xmm = []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}
)

func (w *width) reg(i int) VecPhysical {
	if w.bytes == 32 {
		return ymm[i]
	}
	return zmm[i]
}

// lanes is the number of 32-bit lanes.
func (w *width) lanes() int { return w.bytes / 4 }

// table is the constant of this name: a vector of the 32-bit words that f gives.
func (w *width) table(name string, f func(lane int) uint32) Mem {
	if m, ok := w.made[name]; ok {
		return m
	}
	m := GLOBL(name+w.name, 8|16) // RODATA|NOPTR
	for i := range w.lanes() {
		DATA(4*i, U32(f(i)))
	}
	w.made[name] = m
	return m
}

// all is a vector with x in each lane.
func (w *width) all(name string, x uint32) Mem {
	return w.table(name, func(int) uint32 { return x })
}

// aligned is n bytes of the stack, on a boundary of the vector width.
func (w *width) aligned(n int) Mem {
	frame := AllocLocal(n + w.bytes - 8) // the stack is aligned to 8 bytes
	p := GP64()
	LEAQ(frame.Offset(w.bytes-8), p)
	ANDQ(I32(-w.bytes), p)
	return Mem{Base: p}
}

// erase clears n bytes, whole vectors, at m. Register 0 is lost.
func (w *width) erase(m Mem, n int) {
	w.zero(0)
	for i := 0; i < n; i += w.bytes {
		w.store(w.reg(0), m.Offset(i))
	}
}

func (w *width) zero(i int) {
	if i < 16 {
		VPXOR(ymm[i], ymm[i], ymm[i]) // clears the rest too
	} else {
		VPXORQ(zmm[i], zmm[i], zmm[i])
	}
}

func (w *width) load(m Mem, v VecPhysical) {
	if w.bytes == 32 {
		VMOVDQU(m, v)
	} else {
		VMOVDQU32(m, v)
	}
}

func (w *width) store(v VecPhysical, m Mem) {
	if w.bytes == 32 {
		VMOVDQU(v, m)
	} else {
		VMOVDQU32(v, m)
	}
}

func (w *width) xor(a, b, to Op) {
	if w.bytes == 32 {
		VPXOR(a, b, to)
	} else {
		VPXORD(a, b, to)
	}
}

// leave clears the vector registers and returns.
func (w *width) leave() {
	if w.bytes == 64 {
		for i := 16; i < 32; i++ {
			w.zero(i)
		}
	}
	VZEROALL()
	RET()
}
