// Command _asm writes the amd64 assembly of package essiv: AES-CBC for several
// data units at once, and their initialisation vectors.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const block = 16

// width is a vector width.
type width struct {
	name     string
	bytes    int
	reg      []VecPhysical
	counting Mem // 0, 1, 2, ... in 128-bit lanes
}

// The registers beyond those of the data, 0 to 7.
const (
	roundKey = 8 // the present one
	firstKey = 9
	scratch  = 10 // to 15
)

func (w *width) lanes() int { return w.bytes / block }

func main() {
	ConstraintExpr("amd64,!purego")
	counting := GLOBL("counting", 8|16) // RODATA|NOPTR
	for i := range 32 {
		DATA(16*i, U64(i))
		DATA(16*i+8, U64(0))
	}
	xmm := []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}
	ymm := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	zmm := []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15}
	for _, w := range []*width{
		{"AESNI", 16, xmm, counting},
		{"VAES256", 32, ymm, counting},
		{"VAES512", 64, zmm, counting},
	} {
		w.encrypt()
		w.decrypt()
	}
	Generate()
}

func x(v VecPhysical) Register { return v.AsX() }
func y(v VecPhysical) Register { return v.AsY() }

// broadcast fills every lane of v from m.
func (w *width) broadcast(m Mem, v VecPhysical) {
	switch w.bytes {
	case 16:
		VMOVDQU(m, v)
	case 32:
		VBROADCASTI128(m, v)
	case 64:
		VBROADCASTI32X4(m, v)
	}
}

// spread fills every lane of v from the first.
func (w *width) spread(v VecPhysical) {
	if w.bytes >= 32 {
		VINSERTI128(U8(1), x(v), y(v), y(v))
	}
	if w.bytes == 64 {
		VINSERTI64X4(U8(1), y(v), v, v)
	}
}

// move is a load, a store or a copy.
func (w *width) move(from, to Op) {
	if w.bytes == 64 {
		VMOVDQU64(from, to)
	} else {
		VMOVDQU(from, to)
	}
}

func (w *width) xor(a, b, d Op) {
	if w.bytes == 64 {
		VPXORQ(a, b, d)
	} else {
		VPXOR(a, b, d)
	}
}

// instr writes an instruction.
type instr func()

// aes runs all rounds but the last on the vectors; keys points to the round keys,
// last is the offset of the last one, which is in roundKey at the end. Adding the
// first is left to the caller. The instructions between are spread over the first
// nine rounds.
func (w *width) aes(label string, keys, last Register, enc func(k, s, d Op), vectors []VecPhysical, between ...instr) {
	k := w.reg[roundKey]
	at, done := 0, 0
	round := func(r int) {
		w.broadcast(Mem{Base: keys, Disp: r * block}, k)
		for _, v := range vectors {
			enc(k, v, v)
			at++
			for ; done < len(between)*min(at, 9*len(vectors))/(9*len(vectors)); done++ {
				between[done]()
			}
		}
	}
	for r := 1; r <= 9; r++ {
		round(r)
	}
	CMPQ(last, U32(12*block))
	JB(LabelRef(label))
	round(10)
	round(11)
	CMPQ(last, U32(14*block))
	JB(LabelRef(label))
	round(12)
	round(13)
	Label(label)
	w.broadcast(Mem{Base: keys, Index: last, Scale: 1}, k)
}

// finish clears the vector registers and returns.
func (w *width) finish() {
	if w.bytes == 64 {
		for _, z := range []VecPhysical{Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31} {
			VPXORQ(z, z, z)
		}
	}
	VZEROALL()
	RET()
}
