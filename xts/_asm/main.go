// Command _asm writes the amd64 assembly of package xts.
//
// One call handles up to 64 data units. Their numbers are encrypted first, as
// many vectors at once as there are numbers for (numbers.go). Then the data go
// through in groups of eight vectors, enough to hide the latency of an AES round
// (rounds.go), and between their rounds the tweaks of later groups are made. The
// tweak of block j is T·x^j in GF(2^128), where T is the encrypted number.
//
// What makes the tweaks is what would be idle otherwise.
//
// With 128- and 256-bit registers (narrow.go, tweaks.go) it is the integer units.
// On Zen 3 a shift or shuffle of vectors costs an AES round now and then, and
// carry-less multiplication more; doublings in two general registers cost nothing but
// room in the instruction stream. Cycles for a 256-bit vector of AES-256, whose
// rounds alone take 7.0: 7.4 with integer tweaks, 8.7 with a product by x^16 of
// three shifts and six sums. On a core whose other thread is busy, instructions
// count instead, and the two come near each other, between 9 and 12. Tweaks that are
// stored by halves cannot be loaded as vectors before they have left the store
// queue, so they are made two groups ahead, in a ring of three groups on the stack.
// Only the first two groups, which could not wait, are made in vectors.
//
// With 512-bit registers (wide.go) a vector takes the AES pipes twice as long, logic
// has three operands, and there are registers for all tweaks of a group: they are
// made in place and never leave the registers.
//
// At the end the tweaks on the stack and all vector registers are cleared.
package main

import (
	"encoding/binary"
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	block    = 16
	inFlight = 8  // vectors in a group
	maxUnits = 64 // per call; xts_amd64.go has the same
	maxStep  = 8  // likewise
)

// width is a vector width.
type width struct {
	name  string
	bytes int
	bmi2  bool // is there on every CPU with these vectors
	reg   func(i int) VecPhysical
	key   VecPhysical // a round key in every lane

	numbers     Mem    // a group of vectors for each step from 1 on: 0, step, 2·step, ... in 128-bit lanes
	left, right Mem    // a group of shift counts for spread
	low         Mem    // mask of the low half of each lane; 256 bits only
	rotate      [5]Mem // shuffles that rotate lanes left by so many bytes; 512 bits only
	shift6      Mem    // VPMULTISHIFTQB by it shifts numbers below 2^58 left by 6; 512 bits only
}

func (w *width) lanes() int { return w.bytes / block }
func (w *width) group() int { return w.bytes * inFlight } // bytes

func main() {
	ConstraintExpr("amd64,!purego")

	xmm := []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}
	ymm := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	zmm := []VecPhysical{
		Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31,
	}
	of := func(regs []VecPhysical) func(int) VecPhysical {
		return func(i int) VecPhysical { return regs[i] }
	}
	for _, w := range []*width{
		{name: "AESNI", bytes: 16, reg: of(xmm), key: X8},
		{name: "VAES256", bytes: 32, bmi2: true, reg: of(ymm), key: Y8},
		{name: "VAES512", bytes: 64, reg: of(zmm), key: Z31},
	} {
		w.tables()
		function := w.narrow
		if w.bytes == 64 {
			function = w.wide
		}
		function("encrypt", VAESENC, VAESENCLAST)
		function("decrypt", VAESDEC, VAESDECLAST)
	}
	Generate()
}

// tables writes the constants.
func (w *width) tables() {
	table := func(name string, words []uint64) Mem {
		m := GLOBL(name+w.name, 8|16) // RODATA|NOPTR
		for i, x := range words {
			DATA(8*i, U64(x))
		}
		return m
	}
	var numbers, left, right, low []uint64
	for step := range uint64(maxStep) {
		for i := range uint64(w.lanes() * inFlight) {
			numbers = append(numbers, i*(step+1), 0)
		}
	}
	for i := range uint64(w.lanes() * inFlight) {
		left = append(left, i, i)
		right = append(right, 64-i, 64-i)
	}
	for range w.lanes() {
		low = append(low, ^uint64(0), 0)
	}
	w.numbers = table("numbers", numbers)
	switch w.bytes {
	case 32:
		w.left, w.right, w.low = table("left", left), table("right", right), table("low", low)
	case 64:
		w.left, w.right = table("left", left[:16]), table("right", right[:16])
		for n := 1; n <= 4; n++ {
			var bytes [block]byte
			for i := range bytes {
				bytes[i] = byte((i - n + block) % block)
			}
			lane := []uint64{binary.LittleEndian.Uint64(bytes[:]), binary.LittleEndian.Uint64(bytes[8:])}
			w.rotate[n] = table(fmt.Sprintf("rotate%d", n), slices.Repeat(lane, w.lanes()))
		}
		var from [8]byte // the first bit of each byte
		for i := range from {
			from[i] = byte(8*i-6) & 63
		}
		w.shift6 = table("shift6", slices.Repeat([]uint64{binary.LittleEndian.Uint64(from[:])}, 2*w.lanes()))
	}
}

// declare begins the function that does verb.
func (w *width) declare(verb string) {
	name := verb + w.name
	TEXT(name, 0, "func(keys, tweakKeys *byte, rounds int, dst, src *byte, unit, units int, lo, hi, step uint64)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s %ss units data units of unit bytes, 1 to %d of them; unit is a multiple of %d.",
		name, verb, maxUnits, w.group()),
		"keys are the round keys of the data in order of use, tweakKeys those of the",
		"tweak, rounds+1 each. hi:lo is the number of the first data unit, that of the next",
		fmt.Sprintf("is by step greater, 1 to %d.", maxStep))
}

// broadcast fills every 128-bit lane of v from m.
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

// store and xor have other names with 512 bits.
func (w *width) store(v VecPhysical, m Mem) {
	if w.bytes == 64 {
		VMOVDQU64(v, m)
	} else {
		VMOVDQU(v, m)
	}
}

func (w *width) xor(a Op, b, to VecPhysical) {
	if w.bytes == 64 {
		VPXORQ(a, b, to)
	} else {
		VPXOR(a, b, to)
	}
}

// alignCode starts what follows, the goal of a jump, at a cache line. Without,
// Zen 3 took up to 20 ns longer for a call of 350.
func alignCode() {
	Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []Op{U64(64)}})
}

func log2(n int) (s int) {
	for ; n > 1; n /= 2 {
		s++
	}
	return s
}
