package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// stream256 writes the function that adds the stream: eight blocks of one data unit
// at a time.
func (w *width) stream256() {
	group := w.lanes() * block // bytes
	TEXT("stream"+w.name, 0, "func(sub *uint32, dst, text *byte, rounds, unit, units int)")
	Pragma("noescape")
	Doc("stream"+w.name+" writes units data units of unit bytes at text, xor the streams of the keys at",
		"sub, to text and dst: all but the last 16 bytes of each, which stay.")

	// The stack: row 0, the counters, the key in all lanes, rows that wait for their
	// transposition, and text that does not fill a group.
	const rows = 8
	size := (2+2*rows)*w.bytes + group
	frame := w.aligned(size)
	s := &state{w, frame}
	counter, key, spill, tail := frame.Offset(w.bytes), frame.Offset(2*w.bytes), frame.Offset(10*w.bytes), frame.Offset(18*w.bytes)

	sub := Load(Param("sub"), GP64())
	dst := Load(Param("dst"), GP64())
	text := Load(Param("text"), GP64())
	units := Load(Param("units"), GP64())

	Label("unit")
	for i := range 8 {
		VPBROADCASTD(Mem{Base: sub, Disp: 4 * i}, s.row(i))
		w.store(s.row(i), key.Offset(i*w.bytes))
	}
	ADDQ(U8(32), sub)
	w.load(w.table("numbers", func(i int) uint32 { return uint32(i) }), s.row(0))
	w.store(s.row(0), counter)
	left := Load(Param("unit"), GP64())
	SUBQ(U8(16), left)
	JZ(LabelRef("unitEnd"))

	// in and out are text and dst, or both the tail on the stack.
	in, out := GP64(), GP64()
	Label("group")
	MOVQ(text, in)
	MOVQ(dst, out)
	CMPQ(left, I32(group-16)) // the usual end of a data unit lacks one vector's half only
	JAE(LabelRef("ready"))
	LEAQ(tail, in)
	MOVQ(in, out)
	n, v := GP64(), X0
	XORQ(n, n)
	Label("fill")
	VMOVDQU(Mem{Base: text, Index: n, Scale: 1}, v)
	VMOVDQU(v, Mem{Base: in, Index: n, Scale: 1})
	ADDQ(U8(16), n)
	CMPQ(n, left)
	JB(LabelRef("fill"))
	Label("ready")

	rounds := Load(Param("rounds"), GP64())
	SHRQ(U8(1), rounds)
	s.begin()
	for i := range 8 {
		w.load(key.Offset(i*w.bytes), s.row(4+i))
	}
	w.load(counter, s.row(12))
	w.zero(13)
	w.load(w.all("one", 1), s.row(14))
	w.zero(15)
	s.rounds("rounds", rounds)

	for i := range 8 {
		VPADDD(key.Offset(i*w.bytes), s.row(4+i), s.row(4+i))
	}
	VPADDD(counter, s.row(12), s.row(12))
	VPADDD(w.all("one", 1), s.row(14), s.row(14))
	for i := range rows {
		w.store(s.row(8+i), spill.Offset(i*w.bytes))
	}
	w.load(s.row0, s.row(0))
	for i := range 4 {
		VPADDD(s.sigma(i), s.row(i), s.row(i))
	}
	write := func(at int, v VecPhysical) {
		w.xor(Mem{Base: in, Disp: at}, v, v)
		w.store(v, Mem{Base: in, Disp: at})
		w.store(v, Mem{Base: out, Disp: at})
	}
	s.halves(0, 8, func(lane int, v VecPhysical) { write(lane*block, v) })
	for i := range rows {
		w.load(spill.Offset(i*w.bytes), s.row(i))
	}
	s.halves(0, 8, func(lane int, v VecPhysical) {
		at := lane*block + 32
		if at+w.bytes < group {
			write(at, v)
			return
		}
		CMPQ(left, I32(group-16))
		JNE(LabelRef("whole"))
		VPXOR(Mem{Base: in, Disp: at}, v.AsX(), v.AsX())
		VMOVDQU(v.AsX(), Mem{Base: in, Disp: at})
		VMOVDQU(v.AsX(), Mem{Base: out, Disp: at})
		JMP(LabelRef("unitLast"))
		Label("whole")
		write(at, v)
	})
	CMPQ(left, I32(group))
	JB(LabelRef("tail"))
	ADDQ(I32(group), text)
	ADDQ(I32(group), dst)
	w.load(counter, s.row(0))
	VPADDD(w.all("group", uint32(w.lanes())), s.row(0), s.row(0))
	w.store(s.row(0), counter)
	SUBQ(I32(group), left)
	JNZ(LabelRef("group"))
	JMP(LabelRef("unitEnd"))

	Label("tail")
	XORQ(n, n)
	Label("drain")
	VMOVDQU(Mem{Base: in, Index: n, Scale: 1}, v)
	VMOVDQU(v, Mem{Base: text, Index: n, Scale: 1})
	VMOVDQU(v, Mem{Base: dst, Index: n, Scale: 1})
	ADDQ(U8(16), n)
	CMPQ(n, left)
	JB(LabelRef("drain"))

	Label("unitLast")
	ADDQ(left, text)
	ADDQ(left, dst)
	Label("unitEnd")
	ADDQ(U8(16), text)
	ADDQ(U8(16), dst)
	DECQ(units)
	JNZ(LabelRef("unit"))
	w.erase(frame, size)
	w.leave()
}

// halves turns eight rows in registers from on to lanes: out gets for each lane the
// register with its eight words. The eight registers from free on are lost too.
func (s *state) halves(from, free int, out func(lane int, v VecPhysical)) {
	s.quads(from, free, from)
	s.quads(from+4, free, from+4)
	for i := range 4 {
		VINSERTI128(U8(1), xmm[from+4+i], ymm[from+i], ymm[free+i])
		out(i, ymm[free+i])
	}
	for i := range 4 {
		VPERM2I128(U8(0x31), ymm[from+4+i], ymm[from+i], ymm[free+4+i])
		out(4+i, ymm[free+4+i])
	}
}
