package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// tweaks makes the tweaks of group after group, for 128- and 256-bit registers.
type tweaks struct {
	*width
	unit    GPVirtual // points to the encrypted number of the next data unit
	left    GPVirtual // groups of the present data unit to make
	perUnit Mem       // groups in a data unit
	lo, hi  GPVirtual // the next tweak
	carry   GPVirtual
	shift   GPVirtual // 63; with BMI2
	poly    GPVirtual // x^128 = 0x87
}

// The first tweak of a group fills every lane of register 14, and with its
// halves exchanged register 15.
func (t *tweaks) exchange() { VPSHUFD(U8(0x4e), t.reg(14), t.reg(15)) }

// advance goes on to the first tweak of the next group.
func (t *tweaks) advance() {
	DECQ(t.left)
	JZ(LabelRef("advanceUnit"))
	t.timesGroup(t.reg(14), t.reg(14))
	JMP(LabelRef("advanced"))
	Label("advanceUnit")
	t.broadcast(Mem{Base: t.unit}, t.reg(14))
	ADDQ(U8(block), t.unit)
	MOVQ(t.perUnit, t.left)
	Label("advanced")
	t.exchange()
}

// timesGroup multiplies v by x^(blocks in a group), a whole number of bytes: what
// falls out comes back times 0x87 = 1 + x + x² + x⁷. Uses registers 9 to 11.
func (t *tweaks) timesGroup(v, to VecPhysical) {
	n := t.group() / block / 8
	out, sum, x := t.reg(9), t.reg(10), t.reg(11)
	VPSRLDQ(U8(block-n), v, out)
	VPSLLDQ(U8(n), v, sum)
	VPXOR(out, sum, sum)
	VPADDQ(out, out, x)
	VPSLLQ(U8(7), out, out)
	VPXOR(x, sum, sum)
	VPADDQ(x, x, x)
	VPXOR(out, sum, sum)
	VPXOR(x, sum, to)
}

// spread is vector i of the group whose first tweak is in registers 14 and 15: T
// shifted left as two halves, where what fell out of the low half goes to the high
// one, what fell out of the high half comes back times 0x87. It is stored, and if
// data is given also stays there, where it is lost otherwise.
func (t *tweaks) spread(i int, to VecPhysical, m Mem) (code []instr) {
	do := func(f ...instr) { code = append(code, f...) }
	out, x := t.reg(10), t.reg(11)
	switch {
	case t.bytes == 16 && i == 0:
		return []instr{
			func() { VMOVDQA(t.reg(14), to) },
			func() { VMOVDQU(to, m) },
		}
	case t.bytes == 16:
		do(
			func() { VPSRLQ(U8(64-i), t.reg(15), out) },
			func() { VPSLLQ(U8(i), t.reg(14), to) },
			func() { VPXOR(out, to, to) },
			func() { VMOVQ(out, out) }, // clears the high half
		)
	default:
		do(
			func() { VPSRLVQ(t.right.Offset(i*t.bytes), t.reg(15), out) },
			func() { VPSLLVQ(t.width.left.Offset(i*t.bytes), t.reg(14), to) },
			func() { VPXOR(out, to, to) },
			func() { VPAND(t.low, out, out) },
		)
	}
	do(
		func() { VPADDQ(out, out, x) },
		func() { VPSLLQ(U8(7), out, out) },
		func() { VPXOR(x, to, to) },
		func() { VPADDQ(x, x, x) },
		func() { VPXOR(out, to, to) },
		func() { VPXOR(x, to, to) },
		func() { VMOVDQU(to, m) },
	)
	return code
}

// toScalar sets lo and hi to the first tweak of the group after the one in
// register 14.
func (t *tweaks) toScalar() {
	MOVL(U32(0x87), t.carry.As32())
	t.poly = GP64()
	MOVQ(t.carry, t.poly)
	if t.bmi2 {
		t.shift = GP64()
		MOVL(U32(63), t.shift.As32())
	}
	DECQ(t.left)
	JZ(LabelRef("scalarUnit"))
	t.timesGroup(t.reg(14), t.reg(10))
	VMOVQ(X10, t.lo)
	VPEXTRQ(U8(1), X10, t.hi)
	JMP(LabelRef("scalar"))
	Label("scalarUnit")
	MOVQ(Mem{Base: t.unit}, t.lo)
	MOVQ(Mem{Base: t.unit, Disp: 8}, t.hi)
	ADDQ(U8(block), t.unit)
	MOVQ(t.perUnit, t.left)
	Label("scalar")
}

// doublings makes a group at to.
func (t *tweaks) doublings(to Register, bias int) (code []instr) {
	do := func(f ...instr) { code = append(code, f...) }
	for i := range inFlight * t.lanes() {
		m := Mem{Base: to, Disp: i*block - bias}
		do(
			func() { MOVQ(t.lo, m) },
			func() { MOVQ(t.hi, m.Offset(8)) },
		)
		if t.bmi2 {
			do(func() { SARXQ(t.shift, t.hi, t.carry) })
		} else {
			do(func() { MOVQ(t.hi, t.carry) }, func() { SARQ(U8(63), t.carry) })
		}
		do(
			func() { ANDQ(t.poly, t.carry) },
			func() { ADDQ(t.lo, t.lo); ADCQ(t.hi, t.hi) },
			func() { XORQ(t.carry, t.lo) },
		)
	}
	// At the end of a data unit on to the next. No branch: it would be mispredicted.
	do(
		func() { LEAQ(Mem{Base: t.unit, Disp: block}, t.carry) },
		func() {
			DECQ(t.left)
			CMOVQEQ(Mem{Base: t.unit}, t.lo)
			CMOVQEQ(Mem{Base: t.unit, Disp: 8}, t.hi)
			CMOVQEQ(t.perUnit, t.left)
			CMOVQEQ(t.carry, t.unit)
		},
	)
	return code
}
