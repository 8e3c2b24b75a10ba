// Command _asm writes the amd64 assembly of package roofline: AES rounds on
// independent chains, for each width of a vector.
//
// Twelve chains hide the latency of a round everywhere: it is three to seven
// cycles, and no core starts more than two rounds in one.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	chains = 12 // roofline.go has the same
	unroll = 4  // rounds of each chain in a turn of the loop, and there
)

func main() {
	ConstraintExpr("amd64,!purego")

	xmm := []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12}
	ymm := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12}
	zmm := []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12}
	width("128", 16, xmm, VMOVDQU, func(r VecPhysical) { VPXOR(r, r, r) })
	width("256", 32, ymm, VMOVDQU, func(r VecPhysical) { VPXOR(r, r, r) })
	width("512", 64, zmm, func(from, to Op) { VMOVDQU64(from, to) }, func(r VecPhysical) { VPXORQ(r, r, r) })
	Generate()
}

func width(name string, bytes int, regs []VecPhysical, move func(from, to Op), zero func(VecPhysical)) {
	TEXT("rounds"+name, 4, "func(state *byte, turns int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("rounds%s runs %d×turns AES rounds with a round key of zero on each block of", name, unroll),
		fmt.Sprintf("state, %d vectors of %d bytes. turns is at least 1.", chains, bytes))
	state := Load(Param("state"), GP64())
	turns := Load(Param("turns"), GP64())
	key := regs[chains]
	zero(key)
	for i := range chains {
		move(Mem{Base: state, Disp: i * bytes}, regs[i])
	}
	Label("turn")
	for range unroll {
		for i := range chains {
			VAESENC(key, regs[i], regs[i])
		}
	}
	DECQ(turns)
	JNZ(LabelRef("turn"))
	for i := range chains {
		move(regs[i], Mem{Base: state, Disp: i * bytes})
	}
	VZEROUPPER() // nothing secret was here
	RET()
}
