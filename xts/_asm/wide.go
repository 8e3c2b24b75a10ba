package main

import (
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wide is the function for 512-bit registers: 0 to 7 hold data, 8 to 15 the
// tweaks of the present group until they are added to the data, then those of the
// next; 16 to 23 tweak plus last key, which the last round adds.
func (w *width) wide(verb string, enc, encLast func(k, s, d Op)) {
	w.declare(verb)

	const align = 64
	twBytes := maxUnits*block + 64 // is read ahead by one
	frame := AllocLocal(align + twBytes)
	end := AllocLocal(8)
	tw := GP64()
	allocate := func() {
		LEAQ(frame.Offset(align-1), tw)
		ANDQ(I32(-align), tw)
	}
	allocate()

	units := Load(Param("units"), GP64())
	last := Load(Param("rounds"), GP64())
	SHLQ(U8(log2(block)), last)
	w.numberUnits(tw, units, last, end)

	keys := Load(Param("keys"), GP64())
	ADDQ(U8(keyBias), keys)
	dst := Load(Param("dst"), GP64())
	src := Load(Param("src"), GP64())
	perUnit := Load(Param("unit"), GP64())
	SHRQ(U8(log2(w.group())), perUnit)
	left := GP64()

	lastKey := w.reg(24)
	w.broadcast(Mem{Base: keys, Index: last, Scale: 1, Disp: -keyBias}, lastKey)

	// Masks: the low halves of the lanes, and their 1 to 4 lowest bytes.
	low := K5
	mask := GP64()
	MOVL(U32(0x55), mask.As32())
	KMOVW(mask.As32(), low)
	lowest := []OpmaskPhysical{nil, K1, K2, K3, K4}
	for n := 1; n <= 4; n++ {
		MOVQ(U64((1<<n-1)*0x0001_0001_0001_0001), mask)
		KMOVQ(mask, lowest[n])
	}
	shift6 := w.reg(30)
	VMOVDQU64(w.shift6, shift6)

	data := func(i int) VecPhysical { return w.reg(i) }
	tweak := func(i int) VecPhysical { return w.reg(8 + i) }
	sum := func(i int) VecPhysical { return w.reg(16 + i) }

	// The first tweak of a data unit fills every lane of register 25, and with its
	// halves exchanged register 26.
	// spread is that of narrow vectors.
	spread := func(i int) []instr {
		out, x, y := w.reg(27), w.reg(28), w.reg(29)
		return []instr{
			func() { VPSRLVQ(w.right.Offset(i*w.bytes), w.reg(26), out) },
			func() { VPSLLVQ(w.left.Offset(i*w.bytes), w.reg(25), tweak(i)) },
			func() { VPADDQ_Z(out, out, low, x) },
			func() { VPTERNLOGQ(U8(0x96), out, x, tweak(i)) },
			func() { VPMULTISHIFTQB(x, shift6, y) },
			func() { VPADDQ(x, x, x) },
			func() { VPTERNLOGQ(U8(0x96), x, y, tweak(i)) },
		}
	}
	// times multiplies tweak from by x^8n: rotating the lanes by n bytes adds those
	// that fall out once; the rest of 0x87 follows. On Intel a plain shift would take
	// the port of AES.
	times := func(n, from, to int) []instr {
		out, x := w.reg(27), w.reg(28)
		return []instr{
			func() { VPSHUFB(w.rotate[n], tweak(from), tweak(to)) },
			func() { VMOVDQU8_Z(tweak(to), lowest[n], out) },
			func() { VPADDQ(out, out, x) },
			func() { VPADDQ(x, x, out) },
			func() { VPTERNLOGQ(U8(0x96), out, x, tweak(to)) },
			func() { VPMULTISHIFTQB(x, shift6, x) },
			func() { VPXORQ(x, tweak(to), tweak(to)) },
		}
	}
	unitTweaks := func(base instr) []instr {
		code := []instr{base, func() { VPSHUFD(U8(0x4e), w.reg(25), w.reg(26)) }}
		code = slices.Concat(code, spread(0), spread(1))
		for i := 2; i < inFlight; i++ {
			code = append(code, times(i/2, i%2, i)...)
		}
		return code
	}
	var steps []instr
	for i := range inFlight {
		steps = append(steps, times(4, i, i)...)
	}

	unit := GP64() // points to the encrypted number of the present data unit
	MOVQ(tw, unit)
	emit(unitTweaks(func() { VMOVDQA64(w.reg(14), w.reg(25)) }))

	body := func(label string, also []instr) {
		var load, store []instr
		load = append(load, func() { w.loadKey(keys, 0) })
		for i := range inFlight {
			load = append(load,
				func() { VMOVDQU64(Mem{Base: src, Disp: i * w.bytes}, data(i)) },
				func() { VPTERNLOGQ(U8(0x96), tweak(i), w.key, data(i)) },
				func() { VPXORQ(tweak(i), lastKey, sum(i)) },
			)
			store = append(store,
				func() { encLast(sum(i), data(i), data(i)) },
				func() { VMOVDQU64(data(i), Mem{Base: dst, Disp: i * w.bytes}) },
			)
		}
		emit(load)
		w.rounds(label, inFlight, keys, last, enc, nil, nil, also)
		emit(store)
		ADDQ(U32(w.group()), src)
		ADDQ(U32(w.group()), dst)
	}
	alignCode()
	Label("unit")
	MOVQ(perUnit, left)
	DECQ(left)
	JZ(LabelRef("lastGroup"))
	alignCode()
	Label("inUnit")
	body("inUnit", steps)
	DECQ(left)
	JNZ(LabelRef("inUnit"))
	alignCode()
	Label("lastGroup")
	ADDQ(U8(block), unit)
	body("lastGroup", unitTweaks(func() { w.broadcast(Mem{Base: unit}, w.reg(25)) }))
	DECQ(units)
	JNZ(LabelRef("unit"))

	zero := w.reg(0)
	VPXORQ(zero, zero, zero)
	allocate()
	w.forgetNumbers(tw, end, zero)
	for i := 16; i < 32; i++ {
		VPXORQ(w.reg(i), w.reg(i), w.reg(i))
	}
	VZEROALL()
	RET()
}
