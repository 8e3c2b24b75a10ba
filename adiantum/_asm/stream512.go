package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// half is 512 bytes of a data unit, or less at its end: eight blocks of the stream,
// half of the lanes.
type half struct {
	in, out GPVirtual // text and dst, or both a place on the stack
	n       GPVirtual // bytes; 0 if there is none
	stack   Mem
}

const halfBytes = 512

// walk goes through the halves of all data units.
type walk struct {
	text, dst, sub GPVirtual
	units, left    GPVirtual // left: bytes of this data unit still to come
	counter        GPVirtual // of the next block
}

// stream512 writes the function that adds the stream: eight blocks of one data unit
// and eight more of the same or of the next. So data units of 512 bytes fill the
// vectors too.
func (w *width) stream512() {
	TEXT("stream"+w.name, 0, "func(sub *uint32, dst, text *byte, rounds, unit, units int)")
	Pragma("noescape")
	Doc("stream"+w.name+" writes units data units of unit bytes at text, xor the streams of the keys at",
		"sub, to text and dst: all but the last 16 bytes of each, which stay.")

	frame := w.aligned(2 * halfBytes)
	at := &walk{GP64(), GP64(), GP64(), GP64(), GP64(), GP64()}
	Load(Param("sub"), at.sub)
	Load(Param("dst"), at.dst)
	Load(Param("text"), at.text)
	Load(Param("units"), at.units)
	Load(Param("unit"), at.left)
	XORQ(at.counter, at.counter)
	SUBQ(U8(16), at.left)
	JZ(LabelRef("end")) // data units of one block have no stream

	// Mask 1 is the upper half of the lanes, mask 2 all of a vector but its last 16
	// bytes.
	t := GP64()
	MOVQ(U32(0xff00), t)
	KMOVW(t.As32(), K1)
	MOVQ(U32(0x0fff), t)
	KMOVW(t.As32(), K2)

	const key, counters, one = 16, 24, 25 // registers
	w.load(w.all("one", 1), w.reg(one))

	s := &state{w: w}
	a := &half{GP64(), GP64(), GP64(), frame}
	b := &half{GP64(), GP64(), GP64(), frame.Offset(halfBytes)}

	Label("group")
	for i := range 8 {
		VPBROADCASTD(Mem{Base: at.sub, Disp: 4 * i}, w.reg(key+i))
	}
	VPBROADCASTD(at.counter.As32(), w.reg(counters))
	at.next(a, "A")
	// Without a second half its lanes repeat the first, or run on in a data unit that
	// has ended: nobody looks at them.
	XORQ(b.n, b.n)
	TESTQ(at.units, at.units)
	JZ(LabelRef("noB"))
	for i := range 8 {
		VPBROADCASTD(Mem{Base: at.sub, Disp: 4 * i}, K1, w.reg(key+i))
	}
	VPBROADCASTD(at.counter.As32(), K1, w.reg(counters))
	at.next(b, "B")
	Label("noB")
	VPADDD(w.table("numbersTwice", func(i int) uint32 { return uint32(i % 8) }), w.reg(counters), w.reg(counters))
	a.prepare("A")
	b.prepare("B")

	rounds := Load(Param("rounds"), GP64())
	SHRQ(U8(1), rounds)
	s.begin()
	for i := range 8 {
		VMOVDQA32(w.reg(key+i), s.row(4+i))
	}
	VMOVDQA32(w.reg(counters), s.row(12))
	w.zero(13)
	VMOVDQA32(w.reg(one), s.row(14))
	w.zero(15)
	s.rounds("rounds", rounds)

	for i := range 4 {
		VPADDD(s.sigma(i), s.row(i), s.row(i))
	}
	for i := range 8 {
		VPADDD(w.reg(key+i), s.row(4+i), s.row(4+i))
	}
	VPADDD(w.reg(counters), s.row(12), s.row(12))
	VPADDD(w.reg(one), s.row(14), s.row(14))

	// The key is not needed any more: its registers are free.
	for i := 0; i < 16; i += 4 {
		s.quads(i, key, i)
	}
	// Register i+4j has part j, of 16 bytes, of lanes i, i+4, i+8 and i+12: four such
	// make four blocks. The blocks of the first half are written first.
	block := func(i, quarter int) VecPhysical { return w.reg(i + 4*quarter) }
	for i := range 4 {
		lo1, hi1, lo2, hi2 := w.reg(key), w.reg(key+1), w.reg(key+2), w.reg(key+3)
		r := func(j int) VecPhysical { return w.reg(i + 4*j) }
		VSHUFI32X4(U8(0x44), r(1), r(0), lo1)
		VSHUFI32X4(U8(0xee), r(1), r(0), hi1)
		VSHUFI32X4(U8(0x44), r(3), r(2), lo2)
		VSHUFI32X4(U8(0xee), r(3), r(2), hi2)
		VSHUFI32X4(U8(0x88), lo2, lo1, block(i, 0))
		VSHUFI32X4(U8(0xdd), lo2, lo1, block(i, 1))
		VSHUFI32X4(U8(0x88), hi2, hi1, block(i, 2))
		VSHUFI32X4(U8(0xdd), hi2, hi1, block(i, 3))
	}
	a.write(w, "A", func(i int) VecPhysical { return block(i%4, i/4) })
	b.write(w, "B", func(i int) VecPhysical { return block(i%4, 2+i/4) })
	TESTQ(at.units, at.units)
	JNZ(LabelRef("group"))

	Label("end")
	w.erase(frame, 2*halfBytes)
	w.leave()
}

// next gives h the next half and walks on.
func (at *walk) next(h *half, label string) {
	MOVQ(at.text, h.in)
	MOVQ(at.dst, h.out)
	MOVQ(U32(halfBytes), h.n)
	CMPQ(at.left, h.n)
	CMOVQCS(at.left, h.n)
	ADDQ(h.n, at.text)
	ADDQ(h.n, at.dst)
	ADDQ(U8(halfBytes/block), at.counter)
	SUBQ(h.n, at.left)
	JNZ(LabelRef("same" + label))
	ADDQ(U8(16), at.text)
	ADDQ(U8(16), at.dst)
	ADDQ(U8(32), at.sub)
	XORQ(at.counter, at.counter)
	Load(Param("unit"), at.left)
	SUBQ(U8(16), at.left)
	DECQ(at.units)
	Label("same" + label)
}

// prepare copies a half that is neither full nor lacks the last 16 bytes, which is
// how data units usually end, to the stack.
func (h *half) prepare(label string) {
	CMPQ(h.n, I32(halfBytes-16))
	JAE(LabelRef("ready" + label))
	to, n := GP64(), GP64()
	LEAQ(h.stack, to)
	XORQ(n, n)
	JMP(LabelRef("fill" + label))
	Label("fillMore" + label)
	VMOVDQU(Mem{Base: h.in, Index: n, Scale: 1}, X0)
	VMOVDQU(X0, Mem{Base: to, Index: n, Scale: 1})
	ADDQ(U8(16), n)
	Label("fill" + label)
	CMPQ(n, h.n)
	JB(LabelRef("fillMore" + label))
	Label("ready" + label)
}

// write adds the eight blocks to a half. Register 0 may be lost.
func (h *half) write(w *width, label string, block func(int) VecPhysical) {
	const size = 64
	in, out := GP64(), GP64()
	MOVQ(h.in, in)
	MOVQ(h.out, out)
	CMPQ(h.n, I32(halfBytes-16))
	JAE(LabelRef("direct" + label))
	LEAQ(h.stack, in)
	MOVQ(in, out)
	Label("direct" + label)
	for i := range 7 {
		v, m := block(i), i*size
		w.xor(Mem{Base: in, Disp: m}, v, v)
		w.store(v, Mem{Base: in, Disp: m})
		w.store(v, Mem{Base: out, Disp: m})
	}
	v, m := block(7), 7*size
	CMPQ(h.n, I32(halfBytes-16))
	JNE(LabelRef("full" + label))
	VPXORD_Z(Mem{Base: in, Disp: m}, v, K2, v)
	VMOVDQU32(v, K2, Mem{Base: in, Disp: m})
	VMOVDQU32(v, K2, Mem{Base: out, Disp: m})
	JMP(LabelRef("written" + label))
	Label("full" + label)
	w.xor(Mem{Base: in, Disp: m}, v, v)
	w.store(v, Mem{Base: in, Disp: m})
	w.store(v, Mem{Base: out, Disp: m})
	CMPQ(h.n, I32(halfBytes))
	JE(LabelRef("written" + label))

	n := GP64()
	XORQ(n, n)
	JMP(LabelRef("drain" + label))
	Label("drainMore" + label)
	VMOVDQU(Mem{Base: in, Index: n, Scale: 1}, X0)
	VMOVDQU(X0, Mem{Base: h.in, Index: n, Scale: 1})
	VMOVDQU(X0, Mem{Base: h.out, Index: n, Scale: 1})
	ADDQ(U8(16), n)
	Label("drain" + label)
	CMPQ(n, h.n)
	JB(LabelRef("drainMore" + label))
	Label("written" + label)
}
