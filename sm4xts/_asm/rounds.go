package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A round of SM4 adds L(S(b+c+d+k)) to the word a. Here it costs less than its
// text says.
//
// The state is kept behind the linear map `front` that the S-box begins with, so
// that an inversion in the field of AES follows the sum of three words at once:
// AESENCLAST, or VGF2P8AFFINEINVQB. The words change to that form and back once
// for 32 rounds.
//
// The round keys are added nowhere. Each word is kept with a constant added to
// it, chosen by the key expansion (fold in sm4xts_amd64.go) so that the sum of the
// three is right; what then is wrong in the fourth is one constant, which rides
// on an instruction that takes another operand anyhow: the round key of
// AESENCLAST, or the third operand of VPTERNLOG. (GFNI without AVX-512 adds it.)
//
// L is put together from linear maps of bytes, which are part of the map behind
// the inversion, and rotations of words by whole bytes. Let R be the rotation by
// 8 bits, x a word behind the inversion, v = its bytes rotated by 2 bits, w = x
// plus its bytes shifted down by 6. Then
//
//	q = w + R²(v),  L(x) = q + v + R³(q).
//
// v and w come each from one VGF2P8AFFINEINVQB, or from two VPSHUFB, one for each
// nibble. AESENCLAST also shifts the rows of its state; unshift undoes that.

// transpose turns the four blocks (of each lane) in registers r into their four
// words, or back; scratch to scratch+3 are used.
func (m *machine) transpose(r [4]int, scratch int) {
	a, s := func(i int) VecPhysical { return m.reg(r[i]) }, func(i int) VecPhysical { return m.reg(scratch + i) }
	VPUNPCKLDQ(a(1), a(0), s(0))
	VPUNPCKHDQ(a(1), a(0), s(1))
	VPUNPCKLDQ(a(3), a(2), s(2))
	VPUNPCKHDQ(a(3), a(2), s(3))
	VPUNPCKLQDQ(s(2), s(0), a(0))
	VPUNPCKHQDQ(s(2), s(0), a(1))
	VPUNPCKLQDQ(s(3), s(1), a(2))
	VPUNPCKHQDQ(s(3), s(1), a(3))
}

// Registers of load and store for the maps.
const (
	mLow  = 10 // table of the low nibbles, or matrix
	mHigh = 11
	mMask = 12
)

func (m *machine) loadMap(n nibbles, g Mem) {
	if m.kind == gfni {
		m.copy(g, mLow)
		return
	}
	m.copy(n.lo, mLow)
	m.copy(n.hi, mHigh)
	m.copy(m.mask, mMask)
}

// apply maps the bytes of register r; registers scratch and scratch+1 are used.
func (m *machine) apply(r, scratch int) {
	x, hi := m.reg(r), m.reg(scratch)
	if m.kind == gfni {
		VGF2P8AFFINEQB(U8(0), m.reg(mLow), x, x)
		return
	}
	VPSRLD(U8(4), x, hi)
	VPAND(m.reg(mMask), x, x)
	VPAND(m.reg(mMask), hi, hi)
	VPSHUFB(x, m.reg(mLow), x)
	VPSHUFB(hi, m.reg(mHigh), hi)
	VPXOR(hi, x, x)
}

// word is where word j of group g lives on the stack.
func (m *machine) word(g, j int) Mem { return m.state.Offset((4*g + j) * m.bytes) }

// load brings the chunk at src into groups, the second one of a pair into those
// behind the first.
func (m *machine) load(second int, src Register) {
	m.firstTweak()
	for g := range m.count {
		m.loadGroup(second*m.count+g, src, true)
	}
}

// loadGroup brings four vectors at src into group g: the words that the rounds
// want.
func (m *machine) loadGroup(g int, src Register, tweaked bool) {
	r, at := m.data(g), 4*g*m.bytes
	if g%m.count == 0 {
		m.loadMap(m.front, m.gFront)
	}
	for i := range 4 {
		from := Mem{Base: src, Disp: at + i*m.bytes}
		if tweaked {
			m.tweak(4*(g%m.count)+i, m.tweaksOf(g))
			m.xor(from, m.reg(4), m.reg(r+i))
		} else {
			m.load1(from, m.reg(r+i))
		}
	}
	m.transpose([4]int{r, r + 1, r + 2, r + 3}, 4)
	m.addKey(keyIn, r+3)
	for j := range 4 {
		m.apply(r+j, 4)
		if !m.pairs() {
			m.store1(m.reg(r+j), m.word(g, j))
		}
	}
}

// tweaksOf is the area with the tweaks of the chunk that group g is in.
func (m *machine) tweaksOf(g int) Mem { return m.tweaks.Offset(g / m.count * m.chunk()) }

// data is the first of four registers for group g; with 512-bit registers the
// words stay in them.
func (m *machine) data(g int) int {
	if m.pairs() {
		return 16 + 4*g
	}
	return 0
}

func (m *machine) addKey(n, r int) {
	if m.bytes == 64 {
		VPXORD_BCST(m.key(m.keys, n), m.reg(r), m.reg(r))
	} else {
		VPXOR(m.key(m.keys, n), m.reg(r), m.reg(r))
	}
}

// store is the inverse of load, to dst.
func (m *machine) store(second int, dst Register) {
	for g := range m.count {
		m.storeGroup(second*m.count+g, dst, true)
	}
}

func (m *machine) storeGroup(g int, dst Register, tweaked bool) {
	r, at := m.data(g), 4*g*m.bytes
	if g%m.count == 0 {
		m.loadMap(m.back, m.gBack)
	}
	var out [4]int // the last word first
	for j := range out {
		out[j] = r + 3 - j
		if !m.pairs() {
			m.load1(m.word(g, 3-j), m.reg(out[j]))
		}
		m.apply(out[j], 4)
		if j > 0 {
			m.addKey(keyOut+3-j, out[j])
		}
	}
	m.transpose(out, 4)
	for i, x := range out {
		if tweaked {
			m.xor(m.tweaksOf(g).Offset((4*(g%m.count)+i)*m.bytes), m.reg(x), m.reg(x))
		}
		m.store1(m.reg(x), Mem{Base: dst, Disp: at + i*m.bytes})
	}
}

// rounds puts the first groups through all rounds, four at a time.
func (m *machine) rounds(label string, groups int) {
	k, end := GP64(), GP64()
	MOVQ(m.keys, k)
	LEAQ(m.key(m.keys, rounds), end)
	four := m.fourOnStack
	if m.pairs() {
		four = m.fourInRegisters
	}
	m.prepare(groups)
	Label(label)
	four(k, groups)
	ADDQ(I32(4*m.stride()), k)
	CMPQ(k, end)
	JB(LabelRef(label))
}

// Registers of the rounds.
const (
	rV    = 8 // tables of v and w, low and high nibbles each; or their matrices,
	rW    = 10
	rRot2 = 9 // and the rotations between them
	rRot3 = 11
	rMask = 12
	rTemp = 13 // three of them
)

func (m *machine) prepare(groups int) {
	if m.kind == gfni {
		m.copy(m.gV, rV)
		m.copy(m.gW, rW)
		m.copy(m.rot16, rRot2)
		m.copy(m.rot24, rRot3)
	} else {
		m.copy(m.v.lo, rV)
		m.copy(m.v.hi, rV+1)
		m.copy(m.w.lo, rW)
		m.copy(m.w.hi, rW+1)
		m.copy(m.mask, rMask)
	}
	if !m.pairs() {
		for g := range groups {
			m.load1(m.word(g, 3), m.reg(2*g+1))
		}
	}
}

// fourOnStack does four rounds with sixteen registers: of the words of a group
// only the newest stays in one, register 2g+1; all are on the stack. A sum of two
// words serves two rounds.
func (m *machine) fourOnStack(k Register, groups int) {
	x := m.reg(rTemp)
	for i := range 4 {
		for g := range groups {
			p, n := m.reg(2*g), m.reg(2*g+1)
			var into VecPhysical
			switch i {
			case 0: // n is d
				VPXOR(m.word(g, 2), n, p) // c + d
				VPXOR(m.word(g, 1), p, x)
				into = n
			case 1: // n is a
				VPXOR(n, p, x)
				into = p
			case 2: // n is a, p is b
				VPXOR(p, n, n)
				VPXOR(m.word(g, 3), n, x)
				into = p
			case 3: // n is a + b, p is c
				VPXOR(p, n, x)
				into = n
			}
			m.add(m.key(k, i), m.word(g, i), into)
			VMOVDQU(into, m.word(g, i))
		}
	}
}

// add puts word + L(S(x)) into register into; x is rTemp.
func (m *machine) add(key, word Mem, into VecPhysical) {
	x, hi, t := m.reg(rTemp), m.reg(rTemp+1), m.reg(rTemp+2)
	if m.kind == gfni {
		VGF2P8AFFINEINVQB(U8(0), m.reg(rV), x, into)
		VGF2P8AFFINEINVQB(U8(0), m.reg(rW), x, x)
		VPSHUFB(m.reg(rRot2), into, t)
		VPXOR(t, x, x) // q
		VPXOR(word, into, into)
		VPXOR(key, into, into)
		VPXOR(x, into, into)
		VPSHUFB(m.reg(rRot3), x, x)
		VPXOR(x, into, into)
		return
	}
	if m.kind == aesSplit {
		VEXTRACTI128(U8(1), x, hi.AsX())
		VAESENCLAST(key, x.AsX(), x.AsX())
		VAESENCLAST(key, hi.AsX(), hi.AsX())
		VINSERTI128(U8(1), hi.AsX(), x, x)
	} else {
		VAESENCLAST(key, x, x)
	}
	VPSHUFB(m.unshift, x, x)
	VPSRLD(U8(4), x, hi)
	VPAND(m.reg(rMask), x, x)
	VPAND(m.reg(rMask), hi, hi)
	VPSHUFB(x, m.reg(rV), into)
	VPSHUFB(hi, m.reg(rV+1), t)
	VPXOR(t, into, into) // v
	VPSHUFB(x, m.reg(rW), x)
	VPSHUFB(hi, m.reg(rW+1), hi)
	VPXOR(hi, x, x) // w
	VPSHUFB(m.rot16, into, t)
	VPXOR(t, x, x) // q
	VPXOR(word, into, into)
	VPXOR(x, into, into)
	VPSHUFB(m.rot24, x, x)
	VPXOR(x, into, into)
}

const sum = 0x96 // VPTERNLOG: of three operands

// fourInRegisters does four rounds with thirty-two.
func (m *machine) fourInRegisters(k Register, groups int) {
	for i := range 4 {
		for g := range groups {
			r := func(j int) VecPhysical { return m.reg(m.data(g) + (i+j)%4) }
			x, v, t := m.reg(2*g), m.reg(2*g+1), m.reg(13+g%3)
			VMOVDQA64(r(1), x)
			VPTERNLOGD(U8(sum), r(2), r(3), x)
			VGF2P8AFFINEINVQB(U8(0), m.reg(rV), x, v)
			VGF2P8AFFINEINVQB(U8(0), m.reg(rW), x, x)
			VPSHUFB(m.reg(rRot2), v, t)
			VPTERNLOGD_BCST(U8(sum), m.key(k, i), v, r(0))
			VPXORQ(t, x, x) // q
			VPSHUFB(m.reg(rRot3), x, t)
			VPTERNLOGD(U8(sum), t, x, r(0))
		}
	}
}
