package main

import (
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Decryption has all the ciphertext it needs: eight vectors of one data unit go
// side by side, two AES units times a latency of four. The ciphertext before each
// is read from memory again, one block earlier, except for the first: what stood
// before that one may be overwritten by plaintext already, when source and
// destination are the same.

const inFlight = 8

// The registers of decryption.
const (
	carry = 12 // the last vector of ciphertext of the group before
	fresh = 13 // the same of this group
)

func (w *width) decrypt() {
	name := "decrypt" + w.name
	TEXT(name, 0, "func(keys *byte, rounds int, numberKeys, dst, src *byte, blocks, units int, lo, hi, step uint64, chain *byte, resume int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s decrypts units data units of blocks blocks each, one behind the", name),
		"other, at least one of both. keys are rounds+1 round keys in order of use,",
		"numberKeys the 15 for initialisation vectors. hi:lo is the number of the first",
		"data unit, each has one that is step greater than the one before. If resume is not 0 the only data unit is continued: then chain holds",
		"its last block of ciphertext. Unless chain is nil, 16 bytes, it is given the last",
		"block of ciphertext of this call.")
	keys := Load(Param("keys"), GP64())
	last := Load(Param("rounds"), GP64())
	SHLQ(U8(4), last)
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	units := Load(Param("units"), GP64())
	lo, hi, step := Load(Param("lo"), GP64()), Load(Param("hi"), GP64()), Load(Param("step"), GP64())
	nk := Load(Param("numberKeys"), GP64())
	chain := Load(Param("chain"), GP64())
	key, before, next, t := w.reg[roundKey], w.reg[carry], w.reg[fresh], w.reg[scratch]
	group := inFlight * w.lanes() // blocks
	vectors := w.reg[:inFlight]

	w.broadcast(Mem{Base: keys}, w.reg[firstKey])
	resume := Load(Param("resume"), GP64())
	TESTQ(resume, resume)
	JZ(LabelRef("unit"))
	w.broadcast(Mem{Base: chain}, before)
	JMP(LabelRef("data"))

	// The initialisation vector, of which nothing below waits for a long time.
	Label("unit")
	iv := x(before)
	VMOVQ(lo, iv)
	VPINSRQ(U8(1), hi, iv, iv)
	VPXOR(Mem{Base: nk}, iv, iv)
	for r := 1; r < 14; r++ {
		VAESENC(Mem{Base: nk, Disp: r * block}, iv, iv)
	}
	VAESENCLAST(Mem{Base: nk, Disp: 14 * block}, iv, iv)
	w.spread(before)
	ADDQ(step, lo)
	ADCQ(I8(0), hi)

	Label("data")
	left := Load(Param("blocks"), GP64())
	SUBQ(U32(group), left)
	JB(LabelRef("rest"))
	Label("group")
	for i, v := range vectors {
		w.xor(Mem{Base: src, Disp: i * w.bytes}, w.reg[firstKey], v)
	}
	w.aes("groupEnd", keys, last, VAESDEC, vectors)
	w.move(Mem{Base: src, Disp: (inFlight - 1) * w.bytes}, next)
	// From the last one down: a vector overwrites what the one behind it needed.
	for i, v := range slices.Backward(vectors) {
		switch {
		case i > 0:
			w.xor(Mem{Base: src, Disp: i*w.bytes - block}, key, t)
		case w.bytes == 16:
			w.xor(key, before, t)
		case w.bytes == 32:
			VPERM2I128(U8(0x21), Mem{Base: src}, before, t)
			w.xor(key, t, t)
		case w.bytes == 64:
			w.move(Mem{Base: src}, t)
			VALIGNQ(U8(6), before, t, t)
			w.xor(key, t, t)
		}
		VAESDECLAST(t, v, v)
		w.move(v, Mem{Base: dst, Disp: i * w.bytes})
	}
	w.move(next, before)
	ADDQ(U32(group*block), src)
	ADDQ(U32(group*block), dst)
	SUBQ(U32(group), left)
	JAE(LabelRef("group"))

	// Less than a group is left. Its blocks do not wait for each other either, so
	// the processor takes several at once all the same.
	Label("rest")
	switch w.bytes {
	case 32:
		VEXTRACTI128(U8(1), before, iv)
	case 64:
		VEXTRACTI32X4(U8(3), before, iv)
	}
	ADDQ(U32(group), left)
	JZ(LabelRef("unitEnd"))
	Label("single")
	one := &width{bytes: 16}
	for _, v := range w.reg {
		one.reg = append(one.reg, x(v).(VecPhysical))
	}
	c, p := one.reg[fresh], one.reg[0]
	VMOVDQU(Mem{Base: src}, c)
	VPXOR(c, one.reg[firstKey], p)
	one.aes("singleEnd", keys, last, VAESDEC, one.reg[:1])
	VPXOR(iv, one.reg[roundKey], one.reg[scratch])
	VAESDECLAST(one.reg[scratch], p, p)
	VMOVDQU(p, Mem{Base: dst})
	VMOVDQA(c, iv)
	ADDQ(I8(block), src)
	ADDQ(I8(block), dst)
	DECQ(left)
	JNZ(LabelRef("single"))

	Label("unitEnd")
	DECQ(units)
	JNZ(LabelRef("unit"))
	TESTQ(chain, chain)
	JZ(LabelRef("end"))
	VMOVDQU(iv, Mem{Base: chain})
	Label("end")
	w.finish()
}
