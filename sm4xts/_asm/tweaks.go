package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The tweak of block j of a chunk is T·x^j in GF(2^128), T that of its first
// block. The first eight are T shifted by 0 to 7 bits, the others those eight
// blocks before, shifted by a byte: no chain of doublings. What is shifted out
// comes back times 0x87 = 1 + x + x² + x⁷: a carry-less multiplication, or, where
// only 128-bit registers can do it, shifts and adds.

// Registers of load, beside those of the data: 0 to 3, and 4 to 7 as scratch.
const (
	tFirst = 8 // T in every lane
	tPoly  = 9
)

// firstTweak loads T and leaves in its place that of the next chunk.
func (m *machine) firstTweak() {
	t := m.reg(tFirst)
	at := Mem{Base: m.tw}
	switch m.bytes {
	case 16:
		VMOVDQU(at, t)
	case 32:
		VBROADCASTI128(at, t)
	case 64:
		VBROADCASTI32X4(at, t)
	}
	if m.clmul {
		m.copy(m.poly, tPoly)
	}
	x, o, v := t.AsX(), m.reg(4).AsX(), m.reg(5).AsX()
	n := m.chunk() / block / 8
	VPSLLDQ(U8(n), x, o)
	VPSRLDQ(U8(block-n), x, v)
	m.reduce(v, o, m.reg(6).AsX(), m.reg(tPoly).AsX())
	VMOVDQU(o, at)
}

// reduce adds 0x87·v to o; v is less than 2^57 in each lane and lost.
func (m *machine) reduce(v, o, scratch, poly Op) {
	if m.clmul {
		VPCLMULQDQ(U8(0x00), poly, v, v)
		m.xor(v, o, o)
		return
	}
	m.xor(v, o, o)
	VPADDQ(v, v, scratch)
	m.xor(scratch, o, o)
	VPADDQ(scratch, scratch, scratch)
	m.xor(scratch, o, o)
	VPSLLQ(U8(7), v, v)
	m.xor(v, o, o)
}

// tweak computes vector i of the tweaks of a chunk in register 4, and stores it in
// area.
func (m *machine) tweak(i int, area Mem) {
	o, v, s := m.reg(4), m.reg(5), m.reg(6)
	back := 8 * block / m.bytes
	switch {
	case i >= back:
		m.load1(area.Offset((i-back)*m.bytes), s)
		VPSLLDQ(U8(1), s, o)
		VPSRLDQ(U8(15), s, v)
		m.reduce(v, o, s, m.reg(tPoly))
	case m.bytes == 16 && i == 0:
		VMOVDQA(m.reg(tFirst), o)
	default:
		m.shift(i, o, v)
		if m.clmul {
			VPSLLDQ(U8(8), v, s)
			VPCLMULQDQ(U8(0x01), m.reg(tPoly), v, v) // the high half of v
			m.xor(s, o, o)
			m.xor(v, o, o)
			break
		}
		VPSLLDQ(U8(8), v, s)
		m.xor(s, o, o)
		VPSRLDQ(U8(8), v, v)
		m.reduce(v, o, s, nil)
	}
	m.store1(o, area.Offset(i*m.bytes))
}

// shift puts into o the halves of T shifted left by the number of the block, and
// into v what was shifted out of them.
func (m *machine) shift(i int, o, v VecPhysical) {
	t := m.reg(tFirst)
	if m.bytes == 16 {
		VPSLLQ(U8(i), t, o)
		VPSRLQ(U8(64-i), t, v)
		return
	}
	VPSLLVQ(m.lefts.Offset(i*m.bytes), t, o)
	VPSRLVQ(m.rights.Offset(i*m.bytes), t, v)
}

// Instructions whose name depends on the width.

func (m *machine) xor(a, b, d Op) {
	if m.bytes == 64 && wide(d) {
		VPXORQ(a, b, d)
	} else {
		VPXOR(a, b, d)
	}
}

func wide(r Op) bool { v, ok := r.(VecPhysical); return ok && v.Size() == 64 }

func (m *machine) load1(from Mem, r VecPhysical) {
	if m.bytes == 64 {
		VMOVDQU64(from, r)
	} else {
		VMOVDQU(from, r)
	}
}

func (m *machine) store1(r VecPhysical, to Mem) {
	if m.bytes == 64 {
		VMOVDQU64(r, to)
	} else {
		VMOVDQU(r, to)
	}
}

// copy puts 16 bytes of a constant into every lane of register r.
func (m *machine) copy(from Mem, r int) {
	if m.bytes == 64 {
		VBROADCASTI32X4(from, m.reg(r))
	} else {
		m.load1(from, m.reg(r))
	}
}
