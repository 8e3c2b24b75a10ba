package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// poly evaluates the polynomials of Poly1305 beside NH. The four words that NH makes
// of a kilobyte are two blocks. They wait in memory until NH is under way with what
// comes next, and are taken one by one between its steps: done at once, when NH's last
// sums are still on their way, they would fill the schedulers with instructions that
// cannot start, and NH would stand still.
type poly struct {
	w *width
	h [3]GPVirtual // a number modulo 2^130-5

	// On the stack:
	r     Mem // the point: its two words and 5/4 of the second
	words Mem // four words that wait
	pause Mem // steps of NH before the next block; 0 if none waits
	done  Mem // blocks done of those two, times 16
	last  Mem // 1 if they end a data unit
	sums  Mem // where the next value goes
}

func newPoly(w *width) *poly {
	frame := AllocLocal(88)
	p := &poly{
		w: w, h: [3]GPVirtual{GP64(), GP64(), GP64()},
		words: frame, r: frame.Offset(32), pause: frame.Offset(56),
		done: frame.Offset(64), last: frame.Offset(72), sums: frame.Offset(80),
	}
	r, t, u := GP64(), GP64(), GP64()
	Load(Param("r"), r)
	MOVQ(Mem{Base: r}, t)
	MOVQ(t, p.r)
	MOVQ(Mem{Base: r, Disp: 8}, t)
	MOVQ(t, p.r.Offset(8))
	MOVQ(t, u)
	SHRQ(U8(2), u)
	ADDQ(u, t)
	MOVQ(t, p.r.Offset(16))
	MOVQ(Load(Param("sums"), t), p.sums)
	MOVQ(U32(0), p.pause)
	p.zero()
	return p
}

// forget erases what is secret on the stack.
func (p *poly) forget() {
	for i := range 7 {
		MOVQ(U32(0), p.words.Offset(8*i))
	}
}

func (p *poly) zero() {
	for _, h := range p.h {
		XORQ(h, h)
	}
}

// steps is how many steps of NH go between blocks: a data unit of 512 bytes has
// fewer than four with 512 bits, fewer than eight with 256.
func (p *poly) steps() int { return 128 / p.w.bytes / 2 }

// take lets the words wait that are in X0 and X1. left is what comes of the data unit
// behind them.
func (p *poly) take(left Register) {
	VMOVDQU(X0, p.words)
	VMOVDQU(X1, p.words.Offset(16))
	MOVQ(U32(p.steps()), p.pause)
	MOVQ(U32(0), p.done)
	MOVQ(U32(0), p.last)
	CMPQ(left, U8(1))
	ADCQ(U8(0), p.last)
}

// drain takes all blocks that wait.
func (p *poly) drain(label string, delay Register) {
	Label("drain" + label)
	CMPQ(p.pause, U8(0))
	JE(LabelRef("drained" + label))
	p.block(label, delay)
	JMP(LabelRef("drain" + label))
	Label("drained" + label)
}

// block adds a block and multiplies. It sets delay to the steps before the next one.
//
// What would be at 2^128 and above is brought back at once: 2^130 is 5, and the two
// lowest bits of r1 are clear, so r1·2^128 is 5·(r1/4).
func (p *poly) block(label string, delay Register) {
	h0, h1, h2 := p.h[0], p.h[1], p.h[2]
	r0, r1, s := p.r, p.r.Offset(8), p.r.Offset(16)
	LEAQ(p.words, RDX)
	ADDQ(p.done, RDX)
	ADDQ(Mem{Base: RDX}, h0)
	ADCQ(Mem{Base: RDX, Disp: 8}, h1)
	ADCQ(U8(1), h2)

	d0, c0, c1 := GP64(), GP64(), GP64()
	product := func(h GPVirtual, r Mem) {
		MOVQ(h, RAX)
		MULQ(r)
	}
	product(h0, r0)
	MOVQ(RAX, d0)
	MOVQ(RDX, c0)
	product(h0, r1)
	MOVQ(RAX, h0) // h0 and h1 are needed once more each: the sums take their places
	MOVQ(RDX, c1)
	product(h1, s)
	ADDQ(RAX, d0)
	ADCQ(RDX, c0)
	product(h1, r0)
	ADDQ(RAX, h0)
	ADCQ(RDX, c1)
	MOVQ(h2, RAX)
	IMULQ(s, RAX)
	ADDQ(RAX, h0)
	ADCQ(U8(0), c1)
	IMULQ(r0, h2)
	ADDQ(c0, h0)
	ADCQ(c1, h2)
	MOVQ(h0, h1)
	MOVQ(d0, h0)
	// Fold what is above 2^130.
	MOVQ(h2, RAX)
	MOVQ(h2, RDX)
	ANDQ(U8(3), h2)
	SHRQ(U8(2), RAX)
	ANDQ(I8(-4), RDX)
	ADDQ(RDX, RAX)
	ADDQ(RAX, h0)
	ADCQ(U8(0), h1)
	ADCQ(U8(0), h2)

	MOVQ(U32(p.steps()), delay)
	ADDQ(U8(16), p.done)
	CMPQ(p.done, U8(32))
	JNE(LabelRef("blockEnd" + label))
	XORQ(delay, delay)
	MOVQ(delay, p.pause)
	CMPQ(p.last, U8(0))
	JE(LabelRef("blockEnd" + label))
	p.low()
	p.zero()
	Label("blockEnd" + label)
}

// low writes the lowest 128 bits of the residue: h is below 2^130 + 2^66 here, so the
// prime is to be subtracted if h+5 reaches 2^130.
func (p *poly) low() {
	t0, t1, t2, at := GP64(), GP64(), GP64(), GP64()
	MOVQ(p.h[0], t0)
	MOVQ(p.h[1], t1)
	MOVQ(p.h[2], t2)
	ADDQ(U8(5), t0)
	ADCQ(U8(0), t1)
	ADCQ(U8(0), t2)
	SHRQ(U8(2), t2)
	NEGQ(t2)
	MOVQ(p.sums, at)
	for i, t := range []GPVirtual{t0, t1} {
		XORQ(p.h[i], t)
		ANDQ(t2, t)
		XORQ(t, p.h[i])
		MOVQ(p.h[i], Mem{Base: at, Disp: 8 * i})
	}
	ADDQ(U8(16), p.sums)
}

// empty writes the value of a message of no blocks.
func (p *poly) empty() {
	at := GP64()
	MOVQ(p.sums, at)
	for i := range 2 {
		MOVQ(p.h[i], Mem{Base: at, Disp: 8 * i}) // still zero
	}
	ADDQ(U8(16), p.sums)
}
