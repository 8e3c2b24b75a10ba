package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// narrow is the function for 128- and 256-bit registers. Registers 0 to 7 hold
// data, 8 a key, 9 to 15 are for tweaks.
func (w *width) narrow(verb string, enc, encLast func(k, s, d Op)) {
	w.declare(verb)

	const align = 64
	twBytes := maxUnits*block + 64 // is read ahead by up to three
	frame := AllocLocal(align + twBytes + 3*w.group())
	counters := AllocLocal(24)
	left, perUnit, end := counters, counters.Offset(8), counters.Offset(16)
	tw := GP64()
	allocate := func() {
		LEAQ(frame.Offset(align-1), tw)
		ANDQ(I32(-align), tw)
	}
	allocate()

	units := Load(Param("units"), GP64()).(GPVirtual)
	last := Load(Param("rounds"), GP64())
	SHLQ(U8(log2(block)), last)
	w.numberUnits(tw, units, last, end)

	// Pointers of vector instructions are in the old registers and point into the
	// middle of a group, so that the instructions are short.
	cur, src, dst := RDX, RSI, RDI
	bias := w.group() / 2
	vector := func(p Register, i int) Mem { return Mem{Base: p, Disp: i*w.bytes - bias} }
	keys := Load(Param("keys"), GP64())
	ADDQ(U8(keyBias), keys)
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	SUBQ(I8(-bias), dst)
	SUBQ(I8(-bias), src)

	// The ring: the present group, the next, the one after.
	next, after := GP64(), GP64()
	for i, p := range []Register{cur, next, after} {
		LEAQ(Mem{Base: tw, Disp: twBytes + i*w.group() + bias}, p)
	}

	t := &tweaks{width: w, unit: GP64(), left: GP64(), perUnit: perUnit, lo: GP64(), hi: GP64(), carry: GP64()}
	rotate := func() {
		MOVQ(cur, t.carry)
		MOVQ(next, cur)
		MOVQ(after, next)
		MOVQ(t.carry, after)
	}
	store := func() (code []instr) {
		for i := range inFlight {
			v := w.reg(12 + i%2)
			code = append(code,
				func() { VPXOR(vector(cur, i), w.key, v) },
				func() { encLast(v, w.reg(i), w.reg(i)) },
				func() { VMOVDQU(w.reg(i), vector(dst, i)) },
			)
		}
		return append(code,
			func() { SUBQ(I32(-w.group()), src) },
			func() { SUBQ(I32(-w.group()), dst) },
		)
	}

	// The first group: its tweaks go from the registers to the data at once.
	t.exchange()
	LEAQ(Mem{Base: tw, Disp: block}, t.unit)
	w.loadKey(keys, 0)
	for i := range inFlight {
		emit(t.spread(i, w.reg(i), vector(cur, i)))
		VPXOR(w.reg(i), w.key, w.reg(i))
		VPXOR(vector(src, i), w.reg(i), w.reg(i))
	}
	Load(Param("unit"), t.left)
	SHRQ(U8(log2(w.group())), t.left)
	MOVQ(t.left, perUnit)
	IMULQ(t.left, units)
	MOVQ(units, left)
	t.advance()
	var second []instr
	for i := range inFlight {
		second = append(second, t.spread(i, w.reg(9), vector(next, i))...)
	}
	CMPQ(units, U8(2))
	JA(LabelRef("long"))
	w.rounds("short", inFlight, keys, last, enc, nil, store(), second)
	rotate()
	DECQ(left)
	JNZ(LabelRef("tail"))
	// One group alone: the second's tweaks were for nothing.
	zero := w.reg(15)
	clear := func(slot Register) (code []instr) {
		code = append(code, func() { VPXOR(zero, zero, zero) })
		for i := range inFlight {
			code = append(code, func() { VMOVDQU(zero, vector(slot, i)) })
		}
		return code
	}
	emit(clear(cur))
	JMP(LabelRef("forget"))

	alignCode()
	Label("long")
	t.toScalar()
	w.rounds("long", inFlight, keys, last, enc, nil, nil, weave(second, t.doublings(after, bias)))
	emit(store())
	rotate()
	SUBQ(U8(3), left)
	JZ(LabelRef("two"))

	body := func(label string, also []instr) {
		load := []instr{func() { w.loadKey(keys, 0) }}
		for i := range inFlight {
			load = append(load,
				func() { VPXOR(vector(cur, i), w.key, w.reg(i)) },
				func() { VPXOR(vector(src, i), w.reg(i), w.reg(i)) },
			)
		}
		alignCode()
		Label(label)
		w.rounds(label, inFlight, keys, last, enc, load, store(), also)
		rotate()
		DECQ(left)
		JNZ(LabelRef(label))
	}
	body("main", t.doublings(after, bias))

	// The last two groups have their tweaks: time to clear the ring behind them.
	Label("two")
	MOVQ(U32(2), left)
	body("tail", clear(after))

	Label("forget")
	emit(clear(after))
	allocate()
	w.forgetNumbers(tw, end, zero)
	for _, r := range []GPVirtual{t.lo, t.hi, t.carry} {
		XORL(r.As32(), r.As32())
	}
	VZEROALL()
	RET()
}
