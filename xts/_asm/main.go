// Command _asm writes the amd64 assembly of package xts.
//
// One shape serves every vector width: eight vectors of data are in flight, and
// between their AES rounds the tweaks of the next eight are computed, so that
// neither waits for the other. A call handles up to 64 data units; their numbers
// are encrypted first, eight vectors at a time.
//
// The tweak of block j is T·x^j in GF(2^128). Tweaks live on the stack, in two
// areas of eight vectors that swap roles after each group:
//
//   - within a data unit the next group is the present one times x^(blocks in a
//     group), a whole number of bytes: two byte shifts, and the bytes that fell out
//     times 0x87 = 1 + x + x² + x⁷ by shifts and adds. Carry-less multiplication
//     would need fewer instructions but compete with AES for its pipes.
//   - for the next data unit every vector comes straight from its T by bit shifts
//     of 0 to 15, so no chain of doublings stands in the way.
//
// At the end the tweaks on the stack and all vector registers are cleared.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	block    = 16
	inFlight = 8  // vectors
	maxUnits = 64 // per call; xts_amd64.go has the same
)

// width is a vector width.
type width struct {
	name  string
	bytes int
	reg   func(i int) VecPhysical

	numbers     Mem // inFlight vectors: 0, 1, 2, ... in 128-bit lanes
	left, right Mem // inFlight vectors of shift counts; 256 bits only
	low         Mem // mask of the low half of each lane; 256 bits only
}

func (w *width) blocks() int { return w.bytes / block }
func (w *width) group() int  { return w.bytes * inFlight } // bytes

func main() {
	ConstraintExpr("amd64,!purego")

	xmm := []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}
	ymm := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	for _, w := range []*width{
		{name: "AESNI", bytes: 16, reg: func(i int) VecPhysical { return xmm[i] }},
		{name: "VAES", bytes: 32, reg: func(i int) VecPhysical { return ymm[i] }},
	} {
		w.tables()
		w.function("encrypt", VAESENC, VAESENCLAST)
		w.function("decrypt", VAESDEC, VAESDECLAST)
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
	for i := range w.blocks() * inFlight {
		n := uint64(i)
		numbers = append(numbers, n, 0)
		left = append(left, n, n)
		right = append(right, 64-n, 64-n)
	}
	for range w.blocks() {
		low = append(low, ^uint64(0), 0)
	}
	w.numbers = table("numbers", numbers)
	if w.bytes == 32 {
		w.left, w.right, w.low = table("left", left), table("right", right), table("low", low)
	}
}

// loadLane fills every 128-bit lane of v from m.
func (w *width) loadLane(m Mem, v VecPhysical) {
	if w.bytes == 16 {
		VMOVDQU(m, v)
	} else {
		VBROADCASTI128(m, v)
	}
}

type instr func()

// step is vector i of the group behind the one in cur.
func (w *width) step(i int, cur, next Mem) []instr {
	n := w.group() / block / 8 // bytes to shift
	t, v, o := w.reg(9), w.reg(10), w.reg(11)
	return []instr{
		func() { VMOVDQU(cur.Offset(i*w.bytes), t) },
		func() { VPSRLDQ(U8(16-n), t, v) },
		func() { VPSLLDQ(U8(n), t, o) },
		func() { VPXOR(v, o, o) },
		func() { VPADDQ(v, v, t) },
		func() { VPSLLQ(U8(7), v, v) },
		func() { VPXOR(t, o, o) },
		func() { VPADDQ(t, t, t) },
		func() { VPXOR(v, o, o) },
		func() { VPXOR(t, o, o) },
		func() { VMOVDQU(o, next.Offset(i*w.bytes)) },
	}
}

// spread is vector i of the first group of a data unit whose encrypted number is
// at tw: shifted left as two halves, what fell out of the low half goes to the
// high one, what fell out of the high half comes back times 0x87.
func (w *width) spread(i int, tw, next Mem) []instr {
	b, v, o := w.reg(12), w.reg(13), w.reg(14)
	head := []instr{func() { w.loadLane(tw, b) }}
	if w.bytes == 16 {
		if i == 0 {
			return append(head, func() { VMOVDQU(b, next) })
		}
		head = append(head,
			func() { VPSRLQ(U8(64-i), b, v) },
			func() { VPSLLQ(U8(i), b, o) },
			func() { VPSHUFD(U8(0x4e), v, v) },
			func() { VPXOR(v, o, o) },
			func() { VMOVQ(v, v) }, // clears the high half
		)
	} else {
		head = append(head,
			func() { VPSRLVQ(w.right.Offset(i*w.bytes), b, v) },
			func() { VPSLLVQ(w.left.Offset(i*w.bytes), b, o) },
			func() { VPSHUFD(U8(0x4e), v, v) },
			func() { VPXOR(v, o, o) },
			func() { VPAND(w.low, v, v) },
		)
	}
	return append(head,
		func() { VPADDQ(v, v, b) },
		func() { VPSLLQ(U8(7), v, v) },
		func() { VPXOR(b, o, o) },
		func() { VPADDQ(b, b, b) },
		func() { VPXOR(v, o, o) },
		func() { VPXOR(b, o, o) },
		func() { VMOVDQU(o, next.Offset(i*w.bytes)) },
	)
}

// aes runs the rounds on registers 0 to 7; keys points to the round keys, last
// is the offset of the last one. between[r-1] is woven into round r, r up to 8.
// Left to the caller: the first key, and the last, which is in register 8 at the
// end.
func (w *width) aes(label string, keys, last Register, enc func(k, s, d Op), between [inFlight][]instr) {
	k := w.reg(8)
	round := func(r int, also []instr) {
		w.loadLane(Mem{Base: keys, Disp: r * block}, k)
		done := 0
		for i := range inFlight {
			enc(k, w.reg(i), w.reg(i))
			for ; done < len(also)*(i+1)/inFlight; done++ {
				also[done]()
			}
		}
	}
	for r := 1; r <= 9; r++ {
		if r <= inFlight {
			round(r, between[r-1])
		} else {
			round(r, nil)
		}
	}
	CMPQ(last, U32(12*block))
	JB(LabelRef(label))
	round(10, nil)
	round(11, nil)
	CMPQ(last, U32(14*block))
	JB(LabelRef(label))
	round(12, nil)
	round(13, nil)
	Label(label)
	w.loadLane(Mem{Base: keys, Index: last, Scale: 1}, k)
}

func (w *width) function(verb string, enc, encLast func(k, s, d Op)) {
	name := verb + w.name
	TEXT(name, 0, "func(keys, tweakKeys *byte, rounds int, dst, src *byte, unit, units int, lo, hi uint64)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s %ss units data units of unit bytes, 1 to %d of them; unit is a multiple of %d.",
		name, verb, maxUnits, w.group()),
		"keys are the round keys of the data in order of use, tweakKeys those of the",
		"tweak, rounds+1 each. hi:lo is the number of the first data unit.")

	const align = 64
	twBytes := maxUnits*block + align // one slot more is read ahead
	frame := AllocLocal(align + twBytes + 2*w.group())
	tw := GP64()
	LEAQ(frame.Offset(align-1), tw)
	ANDQ(I32(-align), tw)
	cur, next := GP64(), GP64()
	LEAQ(Mem{Base: tw, Disp: twBytes}, cur)
	LEAQ(Mem{Base: tw, Disp: twBytes + w.group()}, next)

	units := Load(Param("units"), GP64())
	last := Load(Param("rounds"), GP64())
	SHLQ(U8(4), last)

	w.numberUnits(tw, units, last)

	keys := Load(Param("keys"), GP64())
	dst := Load(Param("dst"), GP64())
	src := Load(Param("src"), GP64())
	groups := Load(Param("unit"), GP64())
	SHRQ(U8(log2(w.group())), groups)

	at := GP64() // encrypted number of the present data unit
	MOVQ(tw, at)
	curM, nextM := Mem{Base: cur}, Mem{Base: next}
	for i := range inFlight {
		for _, f := range w.spread(i, Mem{Base: at}, curM) {
			f()
		}
	}

	left := GP64()
	group := func(label string, vector func(i int) []instr) {
		k := w.reg(8)
		w.loadLane(Mem{Base: keys}, k)
		for i := range inFlight {
			VPXOR(curM.Offset(i*w.bytes), k, w.reg(i))
			VPXOR(Mem{Base: src, Disp: i * w.bytes}, w.reg(i), w.reg(i))
		}
		var between [inFlight][]instr
		for i := range between {
			between[i] = vector(i)
		}
		w.aes(label, keys, last, enc, between)
		for i := range inFlight {
			t := w.reg(9 + i%6)
			VPXOR(curM.Offset(i*w.bytes), k, t)
			encLast(t, w.reg(i), w.reg(i))
			VMOVDQU(w.reg(i), Mem{Base: dst, Disp: i * w.bytes})
		}
		ADDQ(U32(w.group()), src)
		ADDQ(U32(w.group()), dst)
		XCHGQ(cur, next)
	}
	Label("unit")
	MOVQ(groups, left)
	DECQ(left)
	JZ(LabelRef("lastGroup"))
	Label("group")
	group("groupEnd", func(i int) []instr { return w.step(i, curM, nextM) })
	DECQ(left)
	JNZ(LabelRef("group"))
	Label("lastGroup")
	ADDQ(U8(block), at)
	group("unitEnd", func(i int) []instr { return w.spread(i, Mem{Base: at}, nextM) })
	DECQ(units)
	JNZ(LabelRef("unit"))

	w.forget(tw, at, twBytes)
	VZEROALL()
	RET()
}

// numberUnits encrypts the numbers of the data units into tw.
func (w *width) numberUnits(tw, units, last Register) {
	tk := Load(Param("tweakKeys"), GP64())
	lo := Load(Param("lo"), GP64())
	hi := Load(Param("hi"), GP64())
	n, out := GP64(), GP64()
	MOVQ(units, n)
	MOVQ(tw, out)
	per := w.blocks() * inFlight
	k := w.reg(8)
	x9, x10 := X9, X10

	Label("numbers")
	end := GP64()
	MOVQ(lo, end)
	ADDQ(U8(per), end)
	JCS(LabelRef("carry"))
	VMOVQ(lo, x9)
	VPINSRQ(U8(1), hi, x9, x9)
	if w.bytes == 32 {
		VINSERTI128(U8(1), x9, Y9, Y9)
	}
	for i := range inFlight {
		VPADDQ(w.numbers.Offset(i*w.bytes), w.reg(9), w.reg(i))
	}
	MOVQ(end, lo)
	JMP(LabelRef("encryptNumbers"))

	// Rare: the low half overflows among these numbers, so each is made on its own.
	Label("carry")
	for i := range inFlight {
		for lane := range w.blocks() {
			x := []VecPhysical{x9, x10}[lane]
			VMOVQ(lo, x)
			VPINSRQ(U8(1), hi, x, x)
			ADDQ(I8(1), lo)
			ADCQ(I8(0), hi)
		}
		if w.bytes == 32 {
			VINSERTI128(U8(1), x10, Y9, w.reg(i))
		} else {
			VMOVDQA(x9, w.reg(i))
		}
	}

	Label("encryptNumbers")
	w.loadLane(Mem{Base: tk}, k)
	for i := range inFlight {
		VPXOR(k, w.reg(i), w.reg(i))
	}
	w.aes("numbersEnd", tk, last, VAESENC, [inFlight][]instr{})
	for i := range inFlight {
		VAESENCLAST(k, w.reg(i), w.reg(i))
		VMOVDQU(w.reg(i), Mem{Base: out, Disp: i * w.bytes})
	}
	ADDQ(U32(w.group()), out)
	SUBQ(U8(per), n)
	JG(LabelRef("numbers"))
}

// forget clears what the stack holds: the encrypted numbers, of which passes of
// a whole group were written up to the one that holds at, and both tweak areas.
func (w *width) forget(tw, at Register, twBytes int) {
	zero := w.reg(0)
	VPXOR(zero, zero, zero)
	for i := range inFlight {
		VMOVDQU(zero, Mem{Base: tw, Disp: twBytes + i*w.bytes})
		VMOVDQU(zero, Mem{Base: tw, Disp: twBytes + w.group() + i*w.bytes})
	}
	Label("forgetNumbers")
	for i := range inFlight {
		VMOVDQU(zero, Mem{Base: tw, Disp: i * w.bytes})
	}
	ADDQ(U32(w.group()), tw)
	CMPQ(tw, at)
	JB(LabelRef("forgetNumbers"))
}

func log2(n int) (s int) {
	for ; n > 1; n /= 2 {
		s++
	}
	return s
}
