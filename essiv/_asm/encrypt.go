package main

import (
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Encryption. Each block waits for the one before it, so only different data
// units can be in flight together: one vector carries one block of as many data
// units as it has lanes, and several vectors go through the AES rounds side by
// side. There is a loop for each of several numbers of vectors, so that few data
// units do not pay for many. Data units that would fill up the last vector and
// are not there are replaced by the last one that is: its bytes are computed
// and written twice.
//
// Data units of 4096 bytes, or on page boundaries, have their blocks of equal
// number in the same few sets of the first cache, more of them than it has ways. So
// every cache line is read at once, four blocks of a data unit, into rows on the
// stack that hold one block of each data unit, is encrypted there row by row, and
// is written at once. There are two such stages: with four vectors and more, one is
// written out and filled again between the AES rounds of the other, which would
// wait for it otherwise.

const line = 4 // blocks; rows in a stage

// loops are the numbers of vectors that have a loop, the last one first.
var loops = []int{8, 4, 2, 1}

// encryption is what the parts of one function share.
type encryption struct {
	*width
	offsets    Mem      // where the data units begin
	cur, other Register // the stages
	dst, src   Register
}

// What happens after the rows of a stage are encrypted.
const (
	fillSecond = iota // not yet: the next line is read into the other stage
	weave             // both stages are full: further lines are woven in
	final             // it is written, alone
	single            // it is one row, and is written
)

func (w *width) maxUnits() int { return loops[0] * w.lanes() }

func (w *width) encrypt() {
	name := "encrypt" + w.name
	TEXT(name, 0, "func(keys *byte, rounds int, numberKeys, dst, src *byte, stride, blocks, units int, lo, hi, step uint64, chain *byte, resume int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s encrypts blocks blocks of each of units data units, 1 to %d, that", name, w.maxUnits()),
		"are stride bytes apart. keys are rounds+1 round keys in order of use, numberKeys",
		"the 15 for initialisation vectors. hi:lo is the number of the first data unit,",
		"each has one that is step greater than the one before, step being below 1<<32.",
		"If resume is not 0 the data units are continued: then chain holds their last",
		fmt.Sprintf("blocks of ciphertext. Unless chain is nil, %d bytes, it is given the last blocks", w.maxUnits()*block),
		"of this call.")
	const align = 64
	stage := line * loops[0] * w.bytes
	frame := AllocLocal(align + 2*stage + 8*w.maxUnits())
	e := &encryption{w, frame.Offset(align + 2*stage), GP64(), GP64(), GP64(), GP64()}
	LEAQ(frame.Offset(align-1), e.cur)
	ANDQ(I32(-align), e.cur)
	LEAQ(Mem{Base: e.cur, Disp: stage}, e.other)

	Load(Param("dst"), e.dst)
	Load(Param("src"), e.src)
	keys := Load(Param("keys"), GP64())
	last := Load(Param("rounds"), GP64())
	SHLQ(U8(4), last)
	blocks := Load(Param("blocks"), GP64())
	units := Load(Param("units"), GP64())
	for _, n := range slices.Backward(loops[1:]) {
		CMPQ(units, U32(n*w.lanes()))
		JBE(LabelRef(fmt.Sprint("by", n)))
	}
	for _, n := range loops {
		e.loop(n, keys, last, blocks, units)
	}
	Label("end")
	w.finish()
}

// loop writes the loop for n vectors.
func (e *encryption) loop(n int, keys, last, blocks, units Register) {
	w := e.width
	vectors := w.reg[:n]
	label := func(s string) string { return fmt.Sprint(s, n) }
	ref := func(s string) LabelRef { return LabelRef(label(s)) }
	wide := n >= line // a vector for each row, at least, to weave in

	// at tells which quarter of the vectors the present row has to weave in: times
	// 8 it is their place in a row of the stage, times 4 in the offsets.
	at, step := GP64(), max(2*n*w.lanes()/line, 1)
	p, mode := GP64(), GP64()
	row := func(end string, between ...instr) {
		for i, v := range vectors {
			w.xor(Mem{Base: p, Disp: i * w.bytes}, v, v)
		}
		w.aes(label(end), keys, last, VAESENC, vectors, between...)
		for i, v := range vectors {
			VAESENCLAST(w.reg[roundKey], v, v)
			w.move(v, Mem{Base: p, Disp: i * w.bytes})
		}
		ADDQ(U32(n*w.bytes), p)
		ADDQ(U32(step), at)
		CMPQ(at, U32(line*step))
	}
	advance := func(ptr Register, n int) { ADDQ(I8(n), ptr) }

	Label(label("by"))
	e.begin(label, units, n)
	w.broadcast(Mem{Base: keys}, w.reg[firstKey])

	Label(label("line"))
	CMPQ(blocks, U32(line))
	JB(ref("less"))
	MOVQ(U32(final), mode)
	if wide {
		CMPQ(blocks, U32(2*line))
		JB(ref("read"))
		MOVQ(U32(fillSecond), mode)
	}
	Label(label("read"))
	for i := range n {
		do(e.readLine(e.units(e.src, i, nil), n, i, e.cur, nil))
	}
	advance(e.src, line*block)
	if wide {
		CMPQ(mode, U32(weave))
		JA(ref("encrypt"))
		XCHGQ(e.cur, e.other)
		JE(ref("encrypt"))
		MOVQ(U32(weave), mode)
		JMP(ref("read"))
	}
	Label(label("encrypt"))
	XORQ(at, at)
	Label(label("rows"))
	MOVQ(e.cur, p)
	Label(label("row"))
	row("last")
	JB(ref("row"))

	CMPQ(mode, U32(final))
	JA(ref("writeBlock"))
	if wide {
		JE(ref("write"))
		Label(label("weave"))
		XCHGQ(e.cur, e.other)
		CMPQ(blocks, U32(3*line))
		JB(ref("lastTwo"))
		XORQ(at, at)
		MOVQ(e.cur, p)
		Label(label("wovenRow"))
		var between []instr
		for i := range n / line {
			u := e.units(e.dst, i, at)
			between = append(between, u.load...)
			between = append(between, e.writeLine(u, n, i, e.other, at)...)
			u.base = e.src
			between = append(between, e.readLine(u, n, i, e.other, at)...)
		}
		row("wovenLast", between...)
		JB(ref("wovenRow"))
		advance(e.src, line*block)
		advance(e.dst, line*block)
		SUBQ(U8(line), blocks)
		JMP(ref("weave"))
		Label(label("lastTwo"))
		XCHGQ(e.cur, e.other)
	}
	Label(label("write"))
	for i := range n {
		do(e.writeLine(e.units(e.dst, i, nil), n, i, e.cur, nil))
	}
	advance(e.dst, line*block)
	SUBQ(U8(line), blocks)
	if wide {
		XCHGQ(e.cur, e.other)
		CMPQ(mode, U32(weave))
		MOVQ(U32(final), mode)
		JE(ref("encrypt"))
		TESTQ(blocks, blocks)
	}
	JNZ(ref("line"))

	Label(label("unitsEnd"))
	chain := Load(Param("chain"), GP64())
	TESTQ(chain, chain)
	JZ(LabelRef("end"))
	for i, v := range vectors {
		w.move(v, Mem{Base: chain, Disp: i * w.bytes})
	}
	JMP(LabelRef("end"))

	// What is no whole line goes block by block.
	Label(label("less"))
	e.readBlocks(n)
	advance(e.src, block)
	MOVQ(U32(single), mode)
	MOVQ(U32((line-1)*step), at)
	JMP(ref("rows"))
	Label(label("writeBlock"))
	e.writeBlocks(n)
	advance(e.dst, block)
	DECQ(blocks)
	JNZ(ref("less"))
	JMP(ref("unitsEnd"))
}

func do(all []instr) {
	for _, f := range all {
		f()
	}
}

// begin writes the offsets of the data units for n vectors, and brings into the
// vectors what is added to the first blocks.
func (e *encryption) begin(label func(string) string, units Register, n int) {
	stride := Load(Param("stride"), GP64())
	i, off, next := GP64(), GP64(), GP64()
	XORQ(i, i)
	XORQ(off, off)
	Label(label("offsets"))
	MOVQ(off, e.offsets.Idx(i, 8))
	LEAQ(Mem{Base: off, Index: stride, Scale: 1}, next)
	INCQ(i)
	CMPQ(i, units)
	CMOVQLT(next, off)
	CMPQ(i, U32(n*e.lanes()))
	JB(LabelRef(label("offsets")))

	resume := Load(Param("resume"), GP64())
	TESTQ(resume, resume)
	JZ(LabelRef(label("numbers")))
	chain := Load(Param("chain"), GP64())
	for i, v := range e.reg[:n] {
		e.move(Mem{Base: chain, Disp: i * e.bytes}, v)
	}
	JMP(LabelRef(label("line0")))
	Label(label("numbers"))
	e.numbers(units, n)
	e.encryptNumbers(label("round"), n)
	Label(label("line0"))
}

// numbers brings the numbers of the data units into n vectors. The low half
// overflows if its highest bit was set and is so no longer, since much less is
// added.
func (e *encryption) numbers(units Register, n int) {
	w := e.width
	base, top, carry, step := w.reg[scratch], w.reg[scratch+1], w.reg[scratch+2], w.reg[scratch+3]
	most := GP64()
	VMOVQ(Load(Param("lo"), GP64()), x(base))
	VPINSRQ(U8(1), Load(Param("hi"), GP64()), x(base), x(base))
	w.spread(base)
	LEAQ(Mem{Base: units, Disp: -1}, most)
	VMOVQ(most, x(top))
	w.spread(top)
	VMOVQ(Load(Param("step"), GP64()), x(step))
	w.spread(step)
	key := w.reg[roundKey]
	nk := Load(Param("numberKeys"), GP64())
	w.broadcast(Mem{Base: nk}, key)
	for i, v := range w.reg[:n] {
		VPMINUD(w.counting.Offset(i*w.bytes), top, v)
		VPMULUDQ(step, v, v)
		VPADDQ(v, base, v)
		if w.bytes == 64 {
			VPANDNQ(base, v, carry)
		} else {
			VPANDN(base, v, carry)
		}
		VPSRLQ(U8(63), carry, carry)
		VPSLLDQ(U8(8), carry, carry)
		VPADDQ(carry, v, v)
		w.xor(key, v, v)
	}
}

// encryptNumbers makes them initialisation vectors. The first round key has been
// added.
func (e *encryption) encryptNumbers(label string, n int) {
	w := e.width
	key, left := w.reg[roundKey], GP64()
	nk := Load(Param("numberKeys"), GP64())
	MOVQ(U32(13), left)
	Label(label)
	ADDQ(I8(block), nk)
	w.broadcast(Mem{Base: nk}, key)
	for _, v := range w.reg[:n] {
		VAESENC(key, v, v)
	}
	DECQ(left)
	JNZ(LabelRef(label))
	w.broadcast(Mem{Base: nk, Disp: block}, key)
	for _, v := range w.reg[:n] {
		VAESENCLAST(key, v, v)
	}
}

// place are the data units of a vector.
type place struct {
	base Register
	off  []Register
	load []instr // brings off into registers
}

func (p place) at(lane, disp int) Mem {
	return Mem{Base: p.base, Index: p.off[lane], Scale: 1, Disp: disp}
}

// units returns where the data units of vector i are, of i vectors behind at
// unless at is nil. Then their offsets are yet to be loaded.
func (e *encryption) units(base Register, i int, at Register) place {
	p := place{base: base}
	for lane := range e.lanes() {
		o, m := GP64(), e.offsets.Offset(8*(i*e.lanes()+lane))
		if at != nil {
			m.Index, m.Scale = at, 4
		}
		p.off = append(p.off, o)
		p.load = append(p.load, func() { MOVQ(m, o) })
	}
	if at == nil {
		do(p.load)
	}
	return p
}

// row returns where vector i of row r is in a stage of n vectors a row, of i
// vectors behind at unless at is nil.
func (e *encryption) row(stage Register, n, r, i int, at Register) Mem {
	m := Mem{Base: stage, Disp: (r*n + i) * e.bytes}
	if at != nil {
		m.Index, m.Scale = at, 8
	}
	return m
}

// readLine brings a line of the data units of vector i, with the first round key
// added, into the rows of the stage.
func (e *encryption) readLine(u place, n, i int, stage, at Register) (all []instr) {
	add := func(f instr) { all = append(all, f) }
	key, t := e.reg[firstKey], e.reg[scratch:]
	row := func(r int) Mem { return e.row(stage, n, r, i, at) }
	switch e.bytes {
	case 16:
		for r := range line {
			add(func() { VPXOR(u.at(0, r*block), key, t[r]) })
			add(func() { VMOVDQA(t[r], row(r)) })
		}
	case 32:
		for r := 0; r < line; r += 2 {
			a, b := t[r], t[r+1]
			add(func() { VMOVDQU(u.at(0, r*block), a) })
			add(func() { VINSERTI128(U8(1), u.at(1, r*block), a, b) })
			add(func() { VPERM2I128(U8(0x31), u.at(1, r*block), a, a) })
			add(func() { VPXOR(key, b, b) })
			add(func() { VPXOR(key, a, a) })
			add(func() { VMOVDQA(b, row(r)) })
			add(func() { VMOVDQA(a, row(r+1)) })
		}
	case 64:
		for k, v := range transposed {
			add(func() { VMOVDQU64(u.at(k, 0), v) })
		}
		rows, shuffles := transpose()
		all = append(all, shuffles...)
		for r, v := range rows {
			add(func() { VPXORQ(key, v, v) })
			add(func() { VMOVDQA64(v, row(r)) })
		}
	}
	return all
}

// writeLine is the way back.
func (e *encryption) writeLine(u place, n, i int, stage, at Register) (all []instr) {
	add := func(f instr) { all = append(all, f) }
	t := e.reg[scratch:]
	row := func(r int) Mem { return e.row(stage, n, r, i, at) }
	switch e.bytes {
	case 16:
		for r := 0; r < line; r += 2 {
			add(func() { VMOVDQA(row(r), x(t[r])) })
			add(func() { VINSERTF128(U8(1), row(r+1), y(t[r]), y(t[r])) })
			add(func() { VMOVDQU(y(t[r]), u.at(0, r*block)) })
		}
	case 32:
		for r := 0; r < line; r += 2 {
			a, b := t[r], t[r+1]
			add(func() { VMOVDQA(row(r), a) })
			add(func() { VINSERTI128(U8(1), row(r+1), a, b) })
			add(func() { VPERM2I128(U8(0x31), row(r+1), a, a) })
			add(func() { VMOVDQU(b, u.at(0, r*block)) })
			add(func() { VMOVDQU(a, u.at(1, r*block)) })
		}
	case 64:
		for r, v := range transposed {
			add(func() { VMOVDQA64(row(r), v) })
		}
		units, shuffles := transpose()
		all = append(all, shuffles...)
		for k, v := range units {
			add(func() { VMOVDQU64(v, u.at(k, 0)) })
		}
	}
	return all
}

// transposed are four vectors of four blocks; transpose makes four others of
// them, of the first blocks of each, of the second ones, and so on.
var transposed = []VecPhysical{Z16, Z17, Z18, Z19}

func transpose() (result []VecPhysical, all []instr) {
	a, b, c, d := transposed[0], transposed[1], transposed[2], transposed[3]
	return []VecPhysical{Z24, Z25, Z26, Z27}, []instr{
		func() { VSHUFI64X2(U8(0x44), b, a, Z20) }, // a0 a1 b0 b1
		func() { VSHUFI64X2(U8(0x44), d, c, Z21) },
		func() { VSHUFI64X2(U8(0xee), b, a, Z22) }, // a2 a3 b2 b3
		func() { VSHUFI64X2(U8(0xee), d, c, Z23) },
		func() { VSHUFI64X2(U8(0x88), Z21, Z20, Z24) }, // a0 b0 c0 d0
		func() { VSHUFI64X2(U8(0xdd), Z21, Z20, Z25) },
		func() { VSHUFI64X2(U8(0x88), Z23, Z22, Z26) },
		func() { VSHUFI64X2(U8(0xdd), Z23, Z22, Z27) },
	}
}

// readBlocks brings one block of every data unit, with the first round key added,
// into the first row of the stage.
func (e *encryption) readBlocks(n int) {
	for i := range n {
		t, u := e.reg[scratch+i%2], e.units(e.src, i, nil)
		for lane := range e.lanes() {
			switch m := u.at(lane, 0); {
			case lane == 0:
				VMOVDQU(m, x(t))
			case lane == 1:
				VINSERTI128(U8(1), m, y(t), y(t))
			default:
				VINSERTI32X4(U8(lane), m, t, t)
			}
		}
		e.xor(e.reg[firstKey], t, t)
		e.move(t, e.row(e.cur, n, 0, i, nil))
	}
}

// writeBlocks is the way back.
func (e *encryption) writeBlocks(n int) {
	for i := range n {
		t, u := e.reg[scratch+i%2], e.units(e.dst, i, nil)
		e.move(e.row(e.cur, n, 0, i, nil), t)
		for lane := range e.lanes() {
			switch m := u.at(lane, 0); {
			case lane == 0:
				VMOVDQU(x(t), m)
			case lane == 1:
				VEXTRACTI128(U8(1), y(t), m)
			default:
				VEXTRACTI32X4(U8(lane), t, m)
			}
		}
	}
}
