// Command _asm writes the amd64 assembly of package hctr2: the hash POLYVAL, and the
// stream of the counter mode with the hash over what comes of it in the same pass.
//
// A group is eight vectors. Its blocks are multiplied by as many powers of the hash
// key, each block by its own, and the sum of the products is reduced once: blocks do
// not wait for each other, and the sum of the group before is needed by the first
// block only, which comes last. Behind the groups what is left goes vector by
// vector in the same way, with the last powers.
//
// A product is four carry-less multiplications. The reduction is Montgomery's: what
// stands in the lowest 64 bits becomes zero by adding the modulus times them, twice,
// and the shift by 128 bits belongs to the definition of POLYVAL.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	block    = 16
	inFlight = 8  // vectors in a group
	powers   = 16 // of the hash key, the first one last; keys.go has the same
)

// Registers, beside those of the data: 0 to 7.
const (
	key     = 8
	t, u    = 9, 10
	lo      = 11 // sums of products: of the low halves,
	hi      = 12 // of the high ones,
	mid     = 13 // and of one with the other
	sum     = 14 // the hash
	counter = 15 // number of the next block, in each lane
)

// width is a vector width.
type width struct {
	name    string
	bytes   int
	regs    []VecPhysical
	numbers Mem // a group of vectors: 0, 1, 2, ... in 128-bit lanes
	poly    Mem // the modulus without its ends, in the low half
}

func (w *width) lanes() int            { return w.bytes / block }
func (w *width) group() int            { return w.bytes * inFlight } // bytes
func (w *width) reg(i int) VecPhysical { return w.regs[i] }
func x(i int) VecPhysical              { return xmm[i] }

var (
	xmm = []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}
	ymm = []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
)

func main() {
	ConstraintExpr("amd64,!purego")
	poly := GLOBL("poly", 8|16) // RODATA|NOPTR
	DATA(0, U64(1<<63|1<<62|1<<57))
	DATA(8, U64(0))
	numbers := GLOBL("numbers", 8|16)
	for i := range 16 {
		DATA(block*i, U64(i))
		DATA(block*i+8, U64(0))
	}
	narrow := &width{"AVX", block, xmm, numbers, poly}
	narrow.hash("hashAVX", false)
	narrow.hash("hashInAVX", true)
	narrow.stream("streamAESNI")
	wide := &width{"AVX2", 2 * block, ymm, numbers, poly}
	wide.hash("hashInVAES256", true)
	wide.stream("streamVAES256")
	Generate()
}

// equal is a constant with n in each lane.
func (w *width) equal(name string, n int) Mem {
	m := GLOBL(name+w.name, 8|16)
	for i := range w.lanes() {
		DATA(block*i, U64(n))
		DATA(block*i+8, U64(0))
	}
	return m
}

// broadcast fills every lane of v from m.
func (w *width) broadcast(m Mem, v VecPhysical) {
	if w.bytes == block {
		VMOVDQU(m, v)
	} else {
		VBROADCASTI128(m, v)
	}
}

// product adds v times the power at m to the sums, or sets them if it is the first.
func product(v, lo, hi, mid, t, u VecPhysical, m Mem, first bool) {
	if first {
		VPCLMULQDQ(U8(0x00), m, v, lo)
		VPCLMULQDQ(U8(0x11), m, v, hi)
		VPCLMULQDQ(U8(0x01), m, v, mid)
		VPCLMULQDQ(U8(0x10), m, v, u)
		VPXOR(u, mid, mid)
		return
	}
	VPCLMULQDQ(U8(0x00), m, v, t)
	VPCLMULQDQ(U8(0x11), m, v, u)
	VPXOR(t, lo, lo)
	VPXOR(u, hi, hi)
	VPCLMULQDQ(U8(0x01), m, v, t)
	VPCLMULQDQ(U8(0x10), m, v, u)
	VPXOR(t, mid, mid)
	VPXOR(u, mid, mid)
}

// group hashes the data of a group. power points to its first power.
func (w *width) hashGroup(power Register) {
	VPXOR(w.reg(sum), w.reg(0), w.reg(0)) // other lanes of sum are zero
	for i := 1; i <= inFlight; i++ {
		v := i % inFlight
		product(w.reg(v), w.reg(lo), w.reg(hi), w.reg(mid), w.reg(t), w.reg(u), Mem{Base: power, Disp: v * w.bytes}, i == 1)
	}
	w.fold()
	w.reduce()
}

// reduce sets sum to the residue of the sums of products.
func (w *width) reduce() {
	VPSLLDQ(U8(8), x(mid), x(t))
	VPSRLDQ(U8(8), x(mid), x(mid))
	VPXOR(x(t), x(lo), x(lo))
	VPXOR(x(mid), x(hi), x(hi))
	for range 2 {
		VPCLMULQDQ(U8(0x00), w.poly, x(lo), x(t))
		VPSHUFD(U8(0x4e), x(lo), x(lo))
		VPXOR(x(t), x(lo), x(lo))
	}
	VPXOR(x(hi), x(lo), x(sum))
}

// rest hashes the left blocks behind the groups, at least one and less than a group:
// vectors, and the block that remains of two. next puts as many blocks as v has lanes
// into its register 0, may use t and u, and goes on.
func (w *width) rest(label string, hash, left Register, next func(v *width, label string)) {
	power := GP64()
	MOVQ(left, power)
	NEGQ(power)
	SHLQ(U8(4), power)
	LEAQ(Mem{Base: hash, Index: power, Scale: 1, Disp: powers * block}, power)
	for _, r := range []int{lo, hi, mid} {
		VPXOR(x(r), x(r), x(r))
	}
	each := func(v *width, label string) {
		next(v, label)
		VPXOR(v.reg(sum), v.reg(0), v.reg(0))
		VPXOR(x(sum), x(sum), x(sum))
		product(v.reg(0), v.reg(lo), v.reg(hi), v.reg(mid), v.reg(t), v.reg(u), Mem{Base: power}, false)
	}
	Label(label)
	if w.bytes == block {
		each(w, label+"Each")
		ADDQ(U8(block), power)
		DECQ(left)
		JNZ(LabelRef(label))
		w.reduce()
		return
	}
	SUBQ(U8(2), left)
	JB(LabelRef(label + "Last"))
	each(w, label+"Each")
	ADDQ(U8(2*block), power)
	JMP(LabelRef(label))
	Label(label + "Last")
	w.fold()
	ADDQ(U8(2), left)
	JZ(LabelRef(label + "None"))
	narrow := *w
	narrow.bytes, narrow.regs = block, xmm
	each(&narrow, label+"One")
	Label(label + "None")
	w.reduce()
}

// fold adds up the lanes of the sums of products.
func (w *width) fold() {
	if w.bytes == block {
		return
	}
	for _, r := range []int{lo, hi, mid} {
		VEXTRACTI128(U8(1), ymm[r], x(t))
		VPXOR(x(t), x(r), x(r))
	}
}

// first points to the first power of a group.
func (w *width) first(hash Register) Register {
	p := GP64()
	LEAQ(Mem{Base: hash, Disp: (powers - inFlight*w.lanes()) * block}, p)
	return p
}

func (w *width) hash(name string, copies bool) {
	args, doc := "hash, sum, src *byte, blocks int", "src"
	if copies {
		args, doc = "hash, sum, text, src *byte, blocks int", "src, which it copies to text, reading it once"
	}
	TEXT(name, 0, "func("+args+")")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s goes on with the hash sum over the blocks at %s,", name, doc),
		"at least one. hash are the powers of the hash key.")
	hash, src, left := Load(Param("hash"), GP64()), Load(Param("src"), GP64()), Load(Param("blocks"), GP64())
	s := Load(Param("sum"), GP64())
	var text Register
	if copies {
		text = Load(Param("text"), GP64())
	}
	power := w.first(hash)
	VMOVDQU(Mem{Base: s}, x(sum))
	n := inFlight * w.lanes()
	SUBQ(U8(n), left)
	JB(LabelRef("few"))
	Label("group")
	for i := range inFlight {
		VMOVDQU(Mem{Base: src, Disp: i * w.bytes}, w.reg(i))
		if copies {
			VMOVDQU(w.reg(i), Mem{Base: text, Disp: i * w.bytes})
		}
	}
	w.hashGroup(power)
	ADDQ(U32(w.group()), src)
	if copies {
		ADDQ(U32(w.group()), text)
	}
	SUBQ(U8(n), left)
	JAE(LabelRef("group"))
	Label("few")
	ADDQ(U8(n), left)
	JZ(LabelRef("done"))
	w.rest("block", hash, left, func(v *width, _ string) {
		VMOVDQU(Mem{Base: src}, v.reg(0))
		ADDQ(U8(v.bytes), src)
		if copies {
			VMOVDQU(v.reg(0), Mem{Base: text})
			ADDQ(U8(v.bytes), text)
		}
	})
	Label("done")
	VMOVDQU(x(sum), Mem{Base: s})
	VZEROALL()
	RET()
}

// rounds are those of AES on vectors, without the first key and the last round. At
// its end the last round key is in k.
func rounds(label string, keys, last Register, k VecPhysical, load func(Mem, VecPhysical), vectors []VecPhysical) {
	round := func(r int) {
		load(Mem{Base: keys, Disp: r * block}, k)
		for _, v := range vectors {
			VAESENC(k, v, v)
		}
	}
	for r := 1; r <= 9; r++ {
		round(r)
	}
	for r := 10; r < 14; r += 2 {
		CMPQ(last, U32((r+2)*block))
		JB(LabelRef(label + "Last"))
		round(r)
		round(r + 1)
	}
	Label(label + "Last")
	load(Mem{Base: keys, Index: last, Scale: 1}, k)
}

func (w *width) stream(name string) {
	TEXT(name, 0, "func(keys *byte, rounds int, start *byte, count uint64, hash, sum, dst, text *byte, blocks int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s adds the stream to the blocks at text, at least one, writes", name),
		"the result to dst, and goes on with the hash sum over it. keys are rounds+1 round",
		"keys in order of use; block i of the stream is the encryption of start xor count+i.",
		"hash are the powers of the hash key.")
	base := AllocLocal(w.bytes) // start plus the first key, in every lane
	keys, last := Load(Param("keys"), GP64()), Load(Param("rounds"), GP64())
	SHLQ(U8(4), last)
	hash, dst, text := Load(Param("hash"), GP64()), Load(Param("dst"), GP64()), Load(Param("text"), GP64())
	left := Load(Param("blocks"), GP64())
	s := Load(Param("start"), GP64())
	w.broadcast(Mem{Base: s}, w.reg(t))
	w.broadcast(Mem{Base: keys}, w.reg(key))
	VPXOR(w.reg(t), w.reg(key), w.reg(t))
	VMOVDQU(w.reg(t), base)
	s = Load(Param("sum"), GP64())
	VMOVDQU(Mem{Base: s}, x(sum))
	VMOVQ(Load(Param("count"), GP64()), x(counter))
	if w.bytes == 2*block {
		VINSERTI128(U8(1), X15, Y15, Y15)
	}
	power := w.first(hash)
	n := inFlight * w.lanes()
	step, lanes := w.equal("group", n), w.equal("lanes", w.lanes())

	SUBQ(U8(n), left)
	JB(LabelRef("few"))
	Label("group")
	for i := range inFlight {
		VPADDQ(w.numbers.Offset(i*w.bytes), w.reg(counter), w.reg(i))
		VPXOR(base, w.reg(i), w.reg(i))
	}
	VPADDQ(step, w.reg(counter), w.reg(counter))
	rounds("group", keys, last, w.reg(key), w.broadcast, w.regs[:inFlight])
	for i := range inFlight {
		v := w.reg(t + i%2)
		VPXOR(Mem{Base: text, Disp: i * w.bytes}, w.reg(key), v)
		VAESENCLAST(v, w.reg(i), w.reg(i))
		VMOVDQU(w.reg(i), Mem{Base: dst, Disp: i * w.bytes})
	}
	w.hashGroup(power)
	ADDQ(U32(w.group()), text)
	ADDQ(U32(w.group()), dst)
	SUBQ(U8(n), left)
	JAE(LabelRef("group"))
	Label("few")
	ADDQ(U8(n), left)
	JZ(LabelRef("done"))
	w.rest("block", hash, left, func(v *width, label string) {
		VPADDQ(w.numbers, v.reg(counter), v.reg(0))
		VPXOR(base, v.reg(0), v.reg(0))
		VPADDQ(lanes, w.reg(counter), w.reg(counter))
		rounds(label, keys, last, v.reg(key), v.broadcast, v.regs[:1])
		VPXOR(Mem{Base: text}, v.reg(key), v.reg(t))
		VAESENCLAST(v.reg(t), v.reg(0), v.reg(0))
		VMOVDQU(v.reg(0), Mem{Base: dst})
		ADDQ(U8(v.bytes), text)
		ADDQ(U8(v.bytes), dst)
	})
	Label("done")
	VMOVDQU(x(sum), Mem{Base: s})
	VPXOR(w.reg(0), w.reg(0), w.reg(0))
	VMOVDQU(w.reg(0), base)
	VZEROALL()
	RET()
}
