package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// An instr emits one instruction, or several of which the later ones need the
// flags of the first.
type instr func()

func emit(code []instr) {
	for _, f := range code {
		f()
	}
}

// weave spreads a and b evenly over each other; both keep their order.
func weave(a, b []instr) (all []instr) {
	for i, j := 0, 0; i < len(a) || j < len(b); {
		if i*len(b) <= j*len(a) && i < len(a) {
			all = append(all, a[i])
			i++
		} else {
			all = append(all, b[j])
			j++
		}
	}
	return all
}

// Pointers to round keys point keyBias bytes behind the first, so that all of
// them are within a displacement of one byte. The instructions in a cache line
// bound what Zen 3 can fetch: with short ones AES-128 is a tenth faster.
const keyBias = 112

func (w *width) loadKey(keys Register, round int) {
	w.broadcast(Mem{Base: keys, Disp: round*block - keyBias}, w.key)
}

// rounds emits before; the rounds on registers 0 to n-1, without the first key
// and the last round; and after, in which w.key is the last key. also is woven into
// it all. last is the offset of the last key; labels begin with label.
func (w *width) rounds(label string, n int, keys, last Register, enc func(k, s, d Op), before, after, also []instr) {
	round := func(r int) []instr {
		code := []instr{func() { w.loadKey(keys, r) }}
		for i := range n {
			code = append(code, func() { enc(w.key, w.reg(i), w.reg(i)) })
		}
		return code
	}
	for r := 1; r <= 9; r++ {
		before = append(before, round(r)...)
	}
	// Not into rounds 10 to 13, which shorter keys skip.
	cut := len(also) * len(before) / (len(before) + len(after))
	emit(weave(before, also[:cut]))
	for r := 10; r < 14; r += 2 {
		CMPQ(last, U32((r+2)*block))
		JB(LabelRef(label + "LastRound"))
		emit(round(r))
		emit(round(r + 1))
	}
	Label(label + "LastRound")
	w.broadcast(Mem{Base: keys, Index: last, Scale: 1, Disp: -keyBias}, w.key)
	emit(weave(after, also[cut:]))
}
