// Command _asm writes the amd64 assembly of package digest.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64,!purego")
	TEXT("clearAVX", 0, "func()")
	Doc("clearAVX clears the sixteen vector registers.")
	VZEROALL()
	RET()
	TEXT("clearSSE", 0, "func()")
	Doc("clearSSE does so where there is no AVX.")
	for _, x := range []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15} {
		PXOR(x, x)
	}
	RET()
	Generate()
}
