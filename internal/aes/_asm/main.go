// Command _asm writes the amd64 assembly of package aes: key schedules, and
// blocks each on its own.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	block    = 16
	inFlight = 8 // vectors: two AES units times a latency of four
)

func main() {
	ConstraintExpr("amd64,!purego")
	expandKey()
	invertKey()
	xmm := []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8}
	ymm := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8}
	for _, v := range []struct {
		verb          string
		round, lastly func(k, s, d Op)
	}{
		{"encrypt", VAESENC, VAESENCLAST},
		{"decrypt", VAESDEC, VAESDECLAST},
	} {
		blocks(v.verb+"BlocksAESNI", v.verb, xmm, block, v.round, v.lastly)
		blocks(v.verb+"BlocksVAES", v.verb, ymm, 2*block, v.round, v.lastly)
	}
	Generate()
}

// table writes a constant of 16-byte rows.
func table(name string, rows ...[block]byte) Mem {
	m := GLOBL(name, 8|16) // RODATA|NOPTR
	for r, row := range rows {
		for i, b := range row {
			DATA(r*block+i, U8(b))
		}
	}
	return m
}

// pick is the shuffle that puts bytes a, b, c, d into every word.
func pick(a, b, c, d byte) (row [block]byte) {
	for i := range row {
		row[i] = []byte{a, b, c, d}[i%4]
	}
	return row
}

// expandKey follows FIPS 197, section 5.2, four words at a time. VAESENCLAST on
// four equal words is SubWord, for ShiftRows moves nothing then, plus a round
// key, which is the round constant here. VAESKEYGENASSIST does the same and
// is slow where it is microcode.
func expandKey() {
	rot3 := table("rotWord3", pick(13, 14, 15, 12)) // RotWord of the last word
	rot1 := table("rotWord1", pick(5, 6, 7, 4))     // of the second one
	word3 := table("word3", pick(12, 13, 14, 15))
	var powers [][block]byte
	for i, x := 0, 1; i < 10; i++ {
		powers = append(powers, pick(byte(x), 0, 0, 0))
		if x <<= 1; x > 0xff {
			x ^= 0x11b
		}
	}
	rcon := table("rcon", powers...)

	TEXT("expandKey", 0, "func(w, key *byte, rounds int)")
	Pragma("noescape")
	Doc("expandKey is Expand for a key of as many rounds: 10, 12 or 14.")
	w, key, rounds := Load(Param("w"), GP64()), Load(Param("key"), GP64()), Load(Param("rounds"), GP64())
	out := func(n int) Mem { return Mem{Base: w, Disp: n} }
	lo, hi, t, u := X0, X1, X2, X3
	sub := func(from VecPhysical, shuffle, constant Op) {
		VPSHUFB(shuffle, from, t)
		VAESENCLAST(constant, t, t)
	}
	// sums adds to each of the four words all those before it, and t.
	sums := func(x VecPhysical) {
		VPSLLDQ(U8(4), x, u)
		VPXOR(u, x, x)
		VPSLLDQ(U8(8), x, u)
		VPXOR(u, x, x)
		VPXOR(t, x, x)
	}
	VMOVDQU(Mem{Base: key}, lo)
	VMOVDQU(lo, out(0))
	CMPQ(rounds, U8(12))
	JEQ(LabelRef("aes192"))
	JA(LabelRef("aes256"))

	for i := range 10 {
		sub(lo, rot3, rcon.Offset(i*block))
		sums(lo)
		VMOVDQU(lo, out((i+1)*block))
	}
	VZEROALL()
	RET()

	Label("aes192") // six words a time: lo, and two in hi
	VMOVQ(Mem{Base: key, Disp: block}, hi)
	VMOVQ(hi, out(block))
	for i := range 8 {
		at := 24 * (i + 1)
		sub(hi, rot1, rcon.Offset(i*block))
		sums(lo)
		VMOVDQU(lo, out(at))
		if i == 7 {
			break // the schedule ends within the six
		}
		VPSLLDQ(U8(4), hi, u)
		VPXOR(u, hi, hi)
		VPSHUFD(U8(0xff), lo, u)
		VPXOR(u, hi, hi)
		VMOVQ(hi, out(at+block))
	}
	VZEROALL()
	RET()

	Label("aes256")
	zero := X4
	VPXOR(zero, zero, zero)
	VMOVDQU(Mem{Base: key, Disp: block}, hi)
	VMOVDQU(hi, out(block))
	for i := range 7 {
		sub(hi, rot3, rcon.Offset(i*block))
		sums(lo)
		VMOVDQU(lo, out((2*i+2)*block))
		if i == 6 {
			break // fifteen keys
		}
		sub(lo, word3, zero)
		sums(hi)
		VMOVDQU(hi, out((2*i+3)*block))
	}
	VZEROALL()
	RET()
}

func invertKey() {
	TEXT("invertKey", 0, "func(dec, enc *byte, rounds int)")
	Pragma("noescape")
	Doc("invertKey is Invert for a schedule of rounds+1 keys.")
	dec, enc, n := Load(Param("dec"), GP64()), Load(Param("enc"), GP64()), Load(Param("rounds"), GP64())
	end := GP64()
	MOVQ(n, end)
	SHLQ(U8(4), end)
	ADDQ(enc, end)
	VMOVDQU(Mem{Base: end}, X0)
	VMOVDQU(X0, Mem{Base: dec})
	DECQ(n)
	Label("middle")
	SUBQ(U8(block), end)
	ADDQ(U8(block), dec)
	VAESIMC(Mem{Base: end}, X0)
	VMOVDQU(X0, Mem{Base: dec})
	DECQ(n)
	JNZ(LabelRef("middle"))
	VMOVDQU(Mem{Base: enc}, X0)
	VMOVDQU(X0, Mem{Base: dec, Disp: block})
	VZEROALL()
	RET()
}

// blocks is one function. A last pass of fewer blocks than are in flight costs
// as much as a whole one, which is as much as one block: the blocks wait for each
// other's rounds anyway. Only the version on 128-bit registers has it.
func blocks(name, verb string, reg []VecPhysical, size int, round, lastly func(k, s, d Op)) {
	whole := inFlight * size / block
	how := "at least 1"
	if size > block {
		how = fmt.Sprintf("a multiple of %d", whole)
	}
	TEXT(name, 0, "func(keys *byte, rounds int, dst, src *byte, blocks int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s %ss blocks blocks, %s, each on its own.", name, verb, how),
		"keys are rounds+1 round keys in order of use.")
	keys, last := Load(Param("keys"), GP64()), Load(Param("rounds"), GP64())
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	n := Load(Param("blocks"), GP64())
	SHLQ(U8(4), last)

	k := reg[inFlight]
	load := func(m Mem) {
		if size == block {
			VMOVDQU(m, k)
		} else {
			VBROADCASTI128(m, k)
		}
	}
	each := func(f func(i int)) {
		for i := range inFlight {
			f(i)
		}
	}
	// few does f for the first n registers and goes on at end; n < inFlight.
	few := func(end string, f func(i int)) {
		for i := range inFlight - 2 {
			f(i)
			CMPQ(n, U8(i+1))
			JEQ(LabelRef(end))
		}
		f(inFlight - 2)
		JMP(LabelRef(end))
	}
	in := func(i int) { VPXOR(Mem{Base: src, Disp: i * size}, k, reg[i]) }
	out := func(i int) { VMOVDQU(reg[i], Mem{Base: dst, Disp: i * size}) }

	Label("pass")
	load(Mem{Base: keys})
	if size == block {
		CMPQ(n, U8(whole))
		JB(LabelRef("loadFew"))
	}
	each(in)
	Label("rounds")
	aes := func(r int) {
		load(Mem{Base: keys, Disp: r * block})
		each(func(i int) { round(k, reg[i], reg[i]) })
	}
	for r := 1; r <= 9; r++ {
		aes(r)
	}
	CMPQ(last, U32(12*block))
	JB(LabelRef("last"))
	aes(10)
	aes(11)
	CMPQ(last, U32(14*block))
	JB(LabelRef("last"))
	aes(12)
	aes(13)
	Label("last")
	load(Mem{Base: keys, Index: last, Scale: 1})
	each(func(i int) { lastly(k, reg[i], reg[i]) })
	if size == block {
		CMPQ(n, U8(whole))
		JB(LabelRef("storeFew"))
	}
	each(out)
	ADDQ(U32(inFlight*size), src)
	ADDQ(U32(inFlight*size), dst)
	SUBQ(U8(whole), n)
	JNZ(LabelRef("pass"))
	Label("end")
	VZEROALL()
	RET()

	if size == block {
		Label("loadFew")
		few("rounds", in)
		Label("storeFew")
		few("end", out)
	}
}
