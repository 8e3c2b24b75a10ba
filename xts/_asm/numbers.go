package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// numberUnits encrypts the numbers of the data units into tw, and sets end to
// the end of what it wrote there: more than units blocks perhaps. The first of
// them is also left in every lane of register 14.
func (w *width) numberUnits(tw, units, last Register, end Mem) {
	keys := Load(Param("tweakKeys"), GP64())
	ADDQ(U8(keyBias), keys)
	lo := Load(Param("lo"), GP64())
	hi := Load(Param("hi"), GP64())
	n, out, next := GP64(), GP64(), GP64()
	MOVQ(units, n)
	MOVQ(tw, out)
	// What depends on the step: it costs nothing once the loop runs.
	step := Load(Param("step"), GP64())
	table, stride := GP64(), GP64()
	LEAQ(w.numbers, table)
	MOVQ(step, stride)
	SHLQ(U8(log2(w.group())), stride)
	ADDQ(stride, table)
	SHRQ(U8(log2(block)), stride) // times lanes times vectors in a group
	first := w.reg(9)

	encrypt := func(vectors int) {
		w.loadKey(keys, 0)
		for i := range vectors {
			w.xor(w.key, w.reg(i), w.reg(i))
		}
		w.rounds(fmt.Sprintf("numbers%d", vectors), vectors, keys, last, VAESENC, nil, nil, nil)
		for i := range vectors {
			VAESENCLAST(w.key, w.reg(i), w.reg(i))
			w.store(w.reg(i), Mem{Base: out, Disp: i * w.bytes})
		}
		ADDQ(U32(vectors*w.bytes), out)
	}

	Label("numbers")
	MOVQ(lo, next)
	ADDQ(stride, next)
	JCS(LabelRef("carry"))
	VMOVQ(lo, X9)
	VPINSRQ(U8(1), hi, X9, X9)
	switch w.bytes {
	case 32:
		VINSERTI128(U8(1), X9, Y9, Y9)
	case 64:
		VSHUFI64X2(U8(0), Z9, Z9, Z9)
	}
	MOVQ(next, lo)
	for _, vectors := range []int{1, 2, 4, inFlight} {
		more := fmt.Sprintf("moreThan%d", vectors)
		if vectors < inFlight {
			CMPQ(n, U8(vectors*w.lanes()))
			JA(LabelRef(more))
		}
		for i := range vectors {
			VPADDQ(Mem{Base: table, Disp: (i - inFlight) * w.bytes}, first, w.reg(i))
		}
		if vectors < inFlight {
			encrypt(vectors)
			CMPQ(n, units) // else there was a group before
			JE(LabelRef("numbered"))
			JMP(LabelRef("firstIsInMemory"))
			alignCode()
			Label(more)
		} else {
			JMP(LabelRef("group"))
		}
	}

	// Rare: the low half overflows among these numbers, so each is made on its own.
	Label("carry")
	for i := range inFlight {
		for lane := range w.lanes() {
			x := []VecPhysical{X9, X10}[min(lane, 1)]
			VMOVQ(lo, x)
			VPINSRQ(U8(1), hi, x, x)
			ADDQ(step, lo)
			ADCQ(I8(0), hi)
			switch {
			case w.bytes == 32 && lane == 1:
				VINSERTI128(U8(1), X10, Y9, Y9)
			case w.bytes == 64 && lane > 0:
				VINSERTI32X4(U8(lane), X10, Z9, Z9)
			}
		}
		if w.bytes == 64 {
			VMOVDQA64(first, w.reg(i))
		} else {
			VMOVDQA(first, w.reg(i))
		}
	}
	alignCode()
	Label("group")
	encrypt(inFlight)
	SUBQ(U8(w.lanes()*inFlight), n)
	JA(LabelRef("numbers"))
	Label("firstIsInMemory")
	VMOVDQU(Mem{Base: tw}, X0)
	alignCode()
	Label("numbered")
	MOVQ(out, end)
	// Not by way of memory: everything waits for this one.
	switch w.bytes {
	case 16:
		VMOVDQA(X0, X14)
	case 32:
		VINSERTI128(U8(1), X0, Y0, Y14)
	case 64:
		VSHUFI64X2(U8(0), Z0, Z0, Z14)
	}
}

// forgetNumbers clears tw to end with the vector zero.
func (w *width) forgetNumbers(tw Register, end Mem, zero VecPhysical) {
	Label("forgetNumbers")
	for at := 0; at < 64; at += w.bytes {
		w.store(zero, Mem{Base: tw, Disp: at})
	}
	ADDQ(U8(64), tw)
	CMPQ(tw, end)
	JB(LabelRef("forgetNumbers"))
}
