// Command _asm writes the amd64 assembly of package sm4xts.
//
// A call transforms up to 64 data units in chunks: 512 bytes, 256 in the one
// function for 128-bit registers. First the numbers of the data units are
// encrypted, as chunks too, by the same code with other keys and tweaks of zero;
// then the data. A chunk is
//
//   - loaded, with the tweaks of its blocks added (tweaks.go), and transposed: one
//     register for each word of several blocks,
//   - put through 32 rounds (rounds.go),
//   - transposed back and stored, with the tweaks added again.
//
// A round is a chain of instructions that wait for each other, so several groups
// of words go through it at once. With 512-bit registers a chunk is two groups,
// and two chunks go together, whether of one data unit or not. With the narrower
// ones it is four groups; the numbers of a short run fill only one, and go alone.
//
// At the end the stack and all vector registers are cleared.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	block    = 16
	maxUnits = 64 // per call; sm4xts_amd64.go has the same
)

// A kind is where the S-box comes from.
type kind int

const (
	aes      kind = iota // AESENCLAST as wide as the other instructions
	aesSplit             // AESENCLAST on the 128-bit halves of a 256-bit register
	gfni
)

// A machine is one function: a vector width and an S-box.
type machine struct {
	constants
	name  string
	kind  kind
	bytes int  // of a vector
	count int  // groups of four vectors in a chunk; after transposition, of words
	clmul bool // carry-less multiplication in registers of that width

	reg func(i int) VecPhysical

	// Registers, and areas on the stack.
	keys, tw, left, per          Register
	numbers, zero, tweaks, state Mem
}

func (m *machine) chunk() int { return 4 * m.count * m.bytes }

// pairs: two chunks at once. Such a machine has registers enough for the state.
func (m *machine) pairs() bool { return m.bytes == 64 }

// stride is the size of an expanded round key.
func (m *machine) stride() int {
	if m.bytes == 64 {
		return 4 // broadcast by the instruction that takes it
	}
	return m.bytes
}

// key is the expanded round key n, and what behind the last one is added to words
// before and after the rounds: keyIn to the last one, keyOut+j to word j but the
// last.
func (m *machine) key(base Register, n int) Mem { return Mem{Base: base, Disp: n * m.stride()} }

const (
	rounds = 32
	keyIn  = 32
	keyOut = 33
)

func main() {
	ConstraintExpr("amd64,!purego")
	xmm := []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}
	ymm := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	zmm := []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}
	regs := func(r []VecPhysical) func(int) VecPhysical { return func(i int) VecPhysical { return r[i] } }
	c := newConstants()
	for _, m := range []*machine{
		{name: "AESNI", kind: aes, bytes: 16, count: 4, clmul: true, reg: regs(xmm)},
		{name: "AESNI256", kind: aesSplit, bytes: 32, count: 4, reg: regs(ymm)},
		{name: "VAES256", kind: aes, bytes: 32, count: 4, clmul: true, reg: regs(ymm)},
		{name: "GFNI256", kind: gfni, bytes: 32, count: 4, clmul: true, reg: regs(ymm)},
		{name: "GFNI512", kind: gfni, bytes: 64, count: 2, clmul: true, reg: regs(zmm)},
	} {
		m.constants = c
		m.function()
	}
	Generate()
}

func (m *machine) function() {
	name := "crypt" + m.name
	TEXT(name, 0, "func(keys, tweakKeys *byte, dst, src *byte, unit, units int, lo, hi, step uint64)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s transforms units data units of unit bytes, 1 to %d of them; unit is a multiple of %d.",
		name, maxUnits, m.chunk()),
		"keys are the folded round keys of the data in order of use, tweakKeys those of",
		"the tweak. hi:lo is the number of the first data unit, each has one that is step",
		"greater than the one before.")

	const align = 64
	inChunk := m.chunk() / block // numbers
	zeros := (maxUnits/inChunk*block + align - 1) / align * align
	areas := 2 * m.chunk()
	frame := AllocLocal(align + maxUnits*block + zeros + areas)
	base := GP64()
	LEAQ(frame.Offset(align-1), base)
	ANDQ(I32(-align), base)
	at := 0
	area := func(n int) Mem { at += n; return Mem{Base: base, Disp: at - n} }
	m.numbers, m.zero, m.tweaks, m.state = area(maxUnits*block), area(zeros), area(areas), Mem{}
	if !m.pairs() {
		m.state = m.tweaks.Offset(m.chunk())
	}

	m.writeNumbers(zeros)

	// The numbers, in chunks that are data units with a tweak of zero.
	src, dst, n, data := GP64(), GP64(), GP64(), GP64()
	m.keys, m.tw, m.left, m.per = GP64(), GP64(), GP64(), GP64()
	Load(Param("units"), n)
	Load(Param("tweakKeys"), m.keys)
	LEAQ(m.numbers, src)
	MOVQ(src, dst)
	if !m.pairs() {
		CMPQ(n, U8(inChunk/m.count))
		JA(LabelRef("manyNumbers"))
		m.loadGroup(0, src, false)
		m.rounds("numberRounds", 1)
		m.storeGroup(0, dst, false)
		JMP(LabelRef("data"))
		Label("manyNumbers")
	}
	ADDQ(I32(inChunk-1), n)
	SHRQ(U8(log2(inChunk)), n)
	LEAQ(m.zero, m.tw)
	MOVQ(U32(1), m.per)
	XORQ(data, data)

	Label("chunks")
	MOVQ(m.per, m.left)
	if m.pairs() {
		m.eachPair(src, dst, n)
	} else {
		Label("chunk")
		m.load(0, src)
		m.rounds("rounds", m.count)
		m.store(0, dst)
		ADDQ(I32(m.chunk()), src)
		ADDQ(I32(m.chunk()), dst)
		m.nextTweak("tweak")
		DECQ(n)
		JNZ(LabelRef("chunk"))
	}
	TESTQ(data, data)
	JNZ(LabelRef("done"))

	Label("data")
	MOVQ(U32(1), data)
	Load(Param("keys"), m.keys)
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("unit"), m.per)
	SHRQ(U8(log2(m.chunk())), m.per)
	Load(Param("units"), n)
	IMULQ(m.per, n)
	LEAQ(m.numbers, m.tw)
	JMP(LabelRef("chunks"))

	Label("done")
	m.forget(areas)
	VZEROALL()
	RET()
}

// eachPair does n chunks, two at a time and then one.
func (m *machine) eachPair(src, dst, n Register) {
	CMPQ(n, U8(2))
	JB(LabelRef("single"))
	Label("pair")
	for i := range 2 {
		m.load(i, src)
		m.nextTweak([]string{"tweak0", "tweak1"}[i])
	}
	m.rounds("pairRounds", 2*m.count)
	for i := range 2 {
		m.store(i, dst)
	}
	ADDQ(I32(2*m.chunk()), src)
	ADDQ(I32(2*m.chunk()), dst)
	SUBQ(U8(2), n)
	CMPQ(n, U8(2))
	JAE(LabelRef("pair"))
	TESTQ(n, n)
	JZ(LabelRef("none"))
	Label("single")
	m.load(0, src)
	m.rounds("rounds", m.count)
	m.store(0, dst)
	Label("none")
}

// nextTweak makes m.tw point to the tweak of the next chunk: load has put it in
// the same place, unless that chunk begins a data unit.
func (m *machine) nextTweak(label string) {
	DECQ(m.left)
	JNZ(LabelRef(label))
	ADDQ(I8(block), m.tw)
	MOVQ(m.per, m.left)
	Label(label)
}

// writeNumbers writes the numbers of the data units; the rest of the last chunk
// of them is whatever the stack holds.
func (m *machine) writeNumbers(zeros int) {
	n, p, lo, hi, step := GP64(), GP64(), GP64(), GP64(), GP64()
	Load(Param("units"), n)
	Load(Param("step"), step)
	Load(Param("lo"), lo)
	Load(Param("hi"), hi)
	LEAQ(m.numbers, p)
	Label("number")
	MOVQ(lo, Mem{Base: p})
	MOVQ(hi, Mem{Base: p, Disp: 8})
	ADDQ(I8(block), p)
	ADDQ(step, lo)
	ADCQ(I8(0), hi)
	DECQ(n)
	JNZ(LabelRef("number"))

	x := m.reg(0).AsX()
	VPXOR(x, x, x)
	for i := 0; i < zeros; i += block {
		VMOVDQU(x, m.zero.Offset(i))
	}
}

// forget clears the stack and, of the registers, those that VZEROALL does not.
func (m *machine) forget(areas int) {
	x, zero := m.reg(0).AsX(), m.reg(0).AsY()
	VPXOR(x, x, x) // and the rest of the register
	for i := 0; i < areas; i += 32 {
		VMOVDQU(zero, m.tweaks.Offset(i))
	}
	for i := 0; i < maxUnits*block; i += 32 {
		VMOVDQU(zero, m.numbers.Offset(i))
	}
	if m.bytes == 64 {
		for i := 16; i < 32; i++ {
			VPXORQ(m.reg(i), m.reg(i), m.reg(i))
		}
	}
}

func log2(n int) (s int) {
	for ; n > 1; n /= 2 {
		s++
	}
	return s
}
