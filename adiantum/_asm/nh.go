package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	passes  = 4    // of NH
	nhUnit  = 16   // bytes
	chunk   = 1024 // bytes that one value of NH is made of
	keySize = (chunk/nhUnit + passes - 1) * nhUnit
)

// hash writes a function that hashes the left parts of data units, all but their
// last 16 bytes: NHPoly1305. NH keeps the vector units busy and leaves general
// registers idle, which multiply for Poly1305: see poly.
//
// Two vectors of the message are mixed: one gets the first halves of their units,
// the other the second halves. So the products of words 0 and 2 are in the even
// words of the lanes and those of 1 and 3, after a shift, too, and no pass needs
// shuffles.
func (w *width) hash(name string, in bool) {
	name = "hash" + name + w.name
	if in {
		TEXT(name, 0, "func(r, pairs, sums *uint64, text, src *byte, unit, units int)")
		Doc(name+" copies units data units of unit bytes from src to text, reading each byte once,",
			"and puts the hash of all but their last 16 bytes into sums, two words each.")
	} else {
		TEXT(name, 0, "func(r, pairs, sums *uint64, text *byte, unit, units int)")
		Doc(name+" puts the hash of all but the last 16 bytes of units data units of unit bytes",
			"into sums, two words each, and erases text.")
	}
	Pragma("noescape")

	from, text := GP64(), GP64()
	Load(Param("text"), text)
	if in {
		Load(Param("src"), from)
	} else {
		MOVQ(text, from)
	}
	p := newPoly(w)
	units := AllocLocal(8)
	left, n, key, delay := GP64(), GP64(), GP64(), GP64()
	MOVQ(Load(Param("units"), n), units)

	// keep copies what was read, or erases it.
	step := func(n int) {
		ADDQ(I32(n), from)
		if in {
			ADDQ(I32(n), text)
		}
	}
	keep := func(v VecPhysical, at int) {
		m := Mem{Base: text, Disp: at}
		if !in {
			m.Base = from
			if v.Size() == 16 {
				v = xmm[zero]
			} else {
				v = w.reg(zero)
			}
		}
		if v.Size() == 16 {
			VMOVDQU(v, m)
		} else {
			w.store(v, m)
		}
	}
	w.zero(zero)

	Label("unit")
	Load(Param("unit"), left)
	SUBQ(U8(16), left)
	JNZ(LabelRef("chunk"))
	p.empty()
	JMP(LabelRef("right"))

	Label("chunk")
	Load(Param("pairs"), key)
	MOVQ(U32(chunk), n)
	CMPQ(left, n)
	CMOVQCS(left, n)
	SUBQ(n, left)
	MOVQ(p.pause, delay)
	for i := range passes {
		w.zero(w.sum(i))
	}
	all := 2 * w.bytes
	SUBQ(I32(all), n)
	JCS(LabelRef("partial"))
	Label("whole")
	w.load(Mem{Base: from}, w.reg(0))
	w.load(Mem{Base: from, Disp: w.bytes}, w.reg(1))
	keep(w.reg(0), 0)
	keep(w.reg(1), w.bytes)
	w.pair(key, nil)
	DECQ(delay)
	JZ(LabelRef("block"))
	Label("next")
	step(all)
	ADDQ(I32(all), key)
	SUBQ(I32(all), n)
	JCC(LabelRef("whole"))
	JMP(LabelRef("partial"))
	Label("block")
	p.block("", delay)
	JMP(LabelRef("next"))

	Label("partial")
	ADDQ(I32(all), n)
	JZ(LabelRef("sum"))
	if w.bytes == 32 {
		w.partial256(from, key, n, step, keep)
	} else {
		w.partial512(from, text, key, n, in)
	}

	Label("sum")
	p.drain("Chunk", delay)
	w.horizontal()
	p.take(left)
	TESTQ(left, left)
	JNZ(LabelRef("chunk"))

	// The last block was kept by the masked end if that was there.
	Label("right")
	if w.bytes == 32 {
		TESTQ(U32(all-1), Load(Param("unit"), n))
		JZ(LabelRef("kept"))
	}
	if in {
		VMOVDQU(Mem{Base: from}, X0)
	}
	keep(X0, 0)
	Label("kept")
	step(16)
	DECQ(units)
	JNZ(LabelRef("unit"))

	p.drain("All", delay)
	p.forget()
	w.leave()
}

// Registers of NH: 0 and 1 the message, 8 to 11 the sums, 15 zero, the others for
// pair.
const zero = 15

func (w *width) sum(i int) int { return 8 + i }

// pair adds two vectors of the message to the sums. add, if it is not nil, adds the
// key to the first halves of their units and clears what does not count.
func (w *width) pair(key Register, add func(key Mem, lo, x VecPhysical)) {
	if add == nil {
		add = func(key Mem, lo, x VecPhysical) { VPADDD(key, lo, x) }
	}
	lo, hi := w.reg(2), w.reg(3)
	VPUNPCKLQDQ(w.reg(1), w.reg(0), lo)
	VPUNPCKHQDQ(w.reg(1), w.reg(0), hi)
	for i := range passes {
		x, y, z := w.reg(4), w.reg(5), w.reg(6)
		if i%2 == 1 {
			x, y, z = w.reg(7), w.reg(12), w.reg(13)
		}
		sum := w.reg(w.sum(i))
		add(Mem{Base: key, Disp: i * nhUnit}, lo, x)
		VPADDD(Mem{Base: key, Disp: i*nhUnit + keySize}, hi, y)
		VPMULUDQ(x, y, z)
		VPSRLQ(U8(32), x, x)
		VPSRLQ(U8(32), y, y)
		VPADDQ(z, sum, sum)
		VPMULUDQ(x, y, x)
		VPADDQ(x, sum, sum)
	}
}

// partial256 adds n bytes, less than two vectors. The usual end of a data unit lacks
// the last 16 of them: those are there but not to be hashed.
func (w *width) partial256(from, key, n Register, step func(int), keep func(VecPhysical, int)) {
	all := 2 * w.bytes
	CMPQ(n, I32(all-nhUnit))
	JNE(LabelRef("single"))
	w.load(Mem{Base: from}, w.reg(0))
	w.load(Mem{Base: from, Disp: w.bytes}, w.reg(1))
	keep(w.reg(0), 0)
	keep(w.reg(1), w.bytes)
	mask := w.table("lacksLast", func(i int) uint32 {
		if i/2 == 3 { // the 64-bit words are of units 0, 2, 1 and 3
			return 0
		}
		return ^uint32(0)
	})
	w.pair(key, func(key Mem, lo, x VecPhysical) {
		VPADDD(key, lo, x)
		VPAND(mask, x, x)
	})
	step(all - nhUnit)
	JMP(LabelRef("sum"))
	Label("single")
	w.single(from, key, keep)
	step(nhUnit)
	ADDQ(U8(nhUnit), key)
	SUBQ(U8(nhUnit), n)
	JNZ(LabelRef("single"))
}

// partial512 adds n bytes, less than two vectors, with masks of 32-bit words: 1 and 2
// for what there is of either vector, 3 for the same after their mixture.
func (w *width) partial512(from, text, key, n Register, in bool) {
	masks := w.masks()
	t, i := GP64(), GP64()
	LEAQ(masks, t)
	MOVQ(n, i)
	SHRQ(U8(1), i) // 8 bytes for each unit
	for j, k := range []Register{K1, K2, K3} {
		KMOVW(Mem{Base: t, Index: i, Scale: 1, Disp: 2 * j}, k)
	}
	VMOVDQU32_Z(Mem{Base: from}, K1, Z0)
	VMOVDQU32_Z(Mem{Base: from, Disp: 64}, K2, Z1)
	if in {
		VMOVDQU32(Z0, K1, Mem{Base: text})
		VMOVDQU32(Z1, K2, Mem{Base: text, Disp: 64})
		ADDQ(n, text)
	} else {
		VMOVDQU32(zmm[zero], K1, Mem{Base: from})
		VMOVDQU32(zmm[zero], K2, Mem{Base: from, Disp: 64})
	}
	ADDQ(n, from)
	w.pair(key, func(key Mem, lo, x VecPhysical) { VPADDD_Z(key, lo, K3, x) })
}

// masks is a table of the masks of partial512, 8 bytes for each number of units.
func (w *width) masks() Mem {
	const name = "masks"
	if m, ok := w.made[name]; ok {
		return m
	}
	m := GLOBL(name+w.name, 8|16) // RODATA|NOPTR
	for n := range 8 {
		var mask [4]uint16
		for unit := range n {
			mask[unit/4] |= 0xf << (unit % 4 * 4)
			// Units 0 to 3 and 4 to 7 of the message take turns.
			mask[2] |= 3 << (unit%4*4 + unit/4*2)
		}
		for i, x := range mask {
			DATA(8*n+2*i, U16(x))
		}
	}
	w.made[name] = m
	return m
}

// single adds 16 bytes of the message to the sums.
func (w *width) single(from, key Register, keep func(VecPhysical, int)) {
	VMOVDQU(Mem{Base: from}, X0)
	keep(X0, 0)
	VPSRLDQ(U8(8), X0, X3)
	for i := range passes {
		VPADDD(Mem{Base: key, Disp: i * nhUnit}, X0, X4)
		VPADDD(Mem{Base: key, Disp: i*nhUnit + keySize}, X3, X5)
		VMOVQ(X4, X4) // the other half would be a product too
		VPMULUDQ(X4, X5, X6)
		VPSRLQ(U8(32), X4, X4)
		VPSRLQ(U8(32), X5, X5)
		VPADDQ(ymm[6], ymm[w.sum(i)], ymm[w.sum(i)])
		VPMULUDQ(X4, X5, X6)
		VPADDQ(ymm[6], ymm[w.sum(i)], ymm[w.sum(i)])
	}
}

// horizontal adds up the lanes: the sums of passes 0 and 1 go to X0, those of 2 and
// 3 to X1.
func (w *width) horizontal() {
	for i := range 2 {
		a, b := w.reg(w.sum(2*i)), w.reg(w.sum(2*i+1))
		VPUNPCKLQDQ(b, a, w.reg(2))
		VPUNPCKHQDQ(b, a, w.reg(3))
		VPADDQ(w.reg(2), w.reg(3), w.reg(i))
		if w.bytes == 64 {
			VEXTRACTI64X4(U8(1), zmm[i], Y2)
			VPADDQ(Y2, ymm[i], ymm[i])
		}
		VEXTRACTI128(U8(1), ymm[i], X2)
		VPADDQ(X2, xmm[i], xmm[i])
	}
}
