package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	sigma0 = 0x61707865 // "expand 32-byte k"
	sigma1 = 0x3320646e
	sigma2 = 0x79622d32
	sigma3 = 0x6b206574

	block = 64 // bytes of a block of the stream
)

// state is sixteen rows of ChaCha, in registers 0 to 15. With 256 bits there are no
// more, and a rotation needs one: row 0, which a quarter round needs only to add to
// it, lives in memory then, and register 0 is free after that.
type state struct {
	w    *width
	row0 Mem
}

func (s *state) row(i int) VecPhysical { return s.w.reg(i) }

func (s *state) spills() bool { return s.w.bytes == 32 }

func (s *state) sigma(i int) Mem {
	return s.w.all(fmt.Sprint("sigma", i), []uint32{sigma0, sigma1, sigma2, sigma3}[i])
}

// begin sets the first four rows.
func (s *state) begin() {
	for i := range 4 {
		s.w.load(s.sigma(i), s.row(i))
	}
	if s.spills() {
		s.w.store(s.row(0), s.row0)
	}
}

// rotations of bytes within each lane.
func (w *width) rotation(n uint32) Mem {
	return w.table(fmt.Sprint("left", n), func(lane int) (x uint32) {
		for i := range uint32(4) {
			from := (i - n/8) % 4
			x |= (uint32(lane)%4*4 + from) << (8 * i)
		}
		return x
	})
}

// rounds emits the loop of double rounds; n is their number and is lost.
func (s *state) rounds(label string, n Register) {
	Label(label)
	s.round([4][4]int{{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}})
	s.round([4][4]int{{0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14}})
	DECQ(n)
	JNZ(LabelRef(label))
}

// round is four quarter rounds in step.
func (s *state) round(quarters [4][4]int) {
	each := func(f func(a, b, c, d VecPhysical)) {
		for _, q := range quarters {
			f(s.row(q[0]), s.row(q[1]), s.row(q[2]), s.row(q[3]))
		}
	}
	for _, n := range []struct{ d, b uint32 }{{16, 12}, {8, 7}} {
		each(func(a, b, c, d VecPhysical) {
			if a == s.row(0) && s.spills() {
				VPADDD(s.row0, b, a)
				s.w.store(a, s.row0)
			} else {
				VPADDD(a, b, a)
			}
			s.w.xor(a, d, d)
		})
		each(func(a, b, c, d VecPhysical) { s.rotate(d, n.d) })
		each(func(a, b, c, d VecPhysical) { VPADDD(d, c, c) })
		each(func(a, b, c, d VecPhysical) { s.w.xor(c, b, b) })
		each(func(a, b, c, d VecPhysical) { s.rotate(b, n.b) })
	}
}

// rotate rotates the lanes of v to the left.
func (s *state) rotate(v VecPhysical, n uint32) {
	switch {
	case s.w.bytes == 64:
		VPROLD(U8(n), v, v)
	case n%8 == 0:
		VPSHUFB(s.w.rotation(n), v, v)
	default:
		t := s.row(0)
		VPSLLD(U8(n), v, t)
		VPSRLD(U8(32-n), v, v)
		VPXOR(t, v, v)
	}
}

// quads turns the four rows in registers from on to lanes: register to+i has lane i
// and, in its further 128-bit parts, the lanes 4, 8 and 12 behind it. The four
// registers from free on are lost.
func (s *state) quads(from, free, to int) {
	r := func(i int) VecPhysical { return s.w.reg(from + i) }
	t := func(i int) VecPhysical { return s.w.reg(free + i) }
	q := func(i int) VecPhysical { return s.w.reg(to + i) }
	VPUNPCKLDQ(r(1), r(0), t(0))
	VPUNPCKHDQ(r(1), r(0), t(1))
	VPUNPCKLDQ(r(3), r(2), t(2))
	VPUNPCKHDQ(r(3), r(2), t(3))
	VPUNPCKLQDQ(t(2), t(0), q(0))
	VPUNPCKHQDQ(t(2), t(0), q(1))
	VPUNPCKLQDQ(t(3), t(1), q(2))
	VPUNPCKHQDQ(t(3), t(1), q(3))
}

// subkeys writes the function that makes the keys of streams.
func (w *width) subkeys() {
	TEXT("subkeys"+w.name, 0, "func(key *uint32, sub *uint32, nonces *byte, rounds int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("subkeys%s makes %d keys of 32 bytes from as many nonces of 16 bytes: HChaCha.", w.name, w.lanes()))
	s := &state{w: w}
	if s.spills() {
		s.row0 = w.aligned(w.bytes)
	}
	key := Load(Param("key"), GP64())
	sub := Load(Param("sub"), GP64())
	nonces := Load(Param("nonces"), GP64())
	rounds := Load(Param("rounds"), GP64())
	SHRQ(U8(1), rounds)

	// The nonces become rows: register i has those of the data units i, i+4 and so on.
	// The keys come out the same way.
	w.gather(nonces)
	s.quads(0, 4, 12)
	for i := range 8 {
		VPBROADCASTD(Mem{Base: key, Disp: 4 * i}, s.row(4+i))
	}
	s.begin()
	s.rounds("rounds", rounds)
	if s.spills() {
		w.load(s.row0, s.row(0))
	}
	s.quads(0, 4, 0)
	s.quads(12, 4, 12)
	for _, part := range []struct{ from, at int }{{0, 0}, {12, 16}} {
		for i := range 4 {
			VMOVDQU(xmm[part.from+i], Mem{Base: sub, Disp: i*32 + part.at})
			for quarter := 1; quarter < w.lanes()/4; quarter++ {
				to := Mem{Base: sub, Disp: (4*quarter+i)*32 + part.at}
				if w.bytes == 32 {
					VEXTRACTI128(U8(quarter), ymm[part.from+i], to)
				} else {
					VEXTRACTI32X4(U8(quarter), zmm[part.from+i], to)
				}
			}
		}
	}
	if s.spills() {
		w.erase(s.row0, w.bytes)
	}
	w.leave()
}

// subkeyPair writes the function for one or two keys: a register is a row of both, so
// that a call ends sooner than with a lane for each.
func (w *width) subkeyPair() {
	TEXT("subkeyPair"+w.name, 0, "func(key, sub *uint32, nonces *byte, rounds int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("subkeyPair%s makes two keys like subkeys%s.", w.name, w.name))
	key := Load(Param("key"), GP64())
	sub := Load(Param("sub"), GP64())
	nonces := Load(Param("nonces"), GP64())
	rounds := Load(Param("rounds"), GP64())
	SHRQ(U8(1), rounds)

	a, b, c, d, t := Y0, Y1, Y2, Y3, Y4
	VMOVDQU(w.table("sigma", func(i int) uint32 { return []uint32{sigma0, sigma1, sigma2, sigma3}[i%4] }), a)
	VBROADCASTI128(Mem{Base: key}, b)
	VBROADCASTI128(Mem{Base: key, Disp: 16}, c)
	VMOVDQU(Mem{Base: nonces}, d)

	rotate := func(v VecPhysical, n uint32) {
		switch {
		case w.bytes == 64:
			VPROLD(U8(n), v, v)
		case n%8 == 0:
			VPSHUFB(w.rotation(n), v, v)
		default:
			VPSLLD(U8(n), v, t)
			VPSRLD(U8(32-n), v, v)
			VPXOR(t, v, v)
		}
	}
	Label("rounds")
	// Row b is ready last, so it stays and the others turn against it.
	for _, turn := range [][3]uint8{{0x93, 0x39, 0x4e}, {0x39, 0x93, 0x4e}} {
		for _, n := range []struct{ d, b uint32 }{{16, 12}, {8, 7}} {
			VPADDD(a, b, a)
			VPXOR(a, d, d)
			rotate(d, n.d)
			VPADDD(d, c, c)
			VPXOR(c, b, b)
			rotate(b, n.b)
		}
		VPSHUFD(U8(turn[0]), a, a)
		VPSHUFD(U8(turn[1]), c, c)
		VPSHUFD(U8(turn[2]), d, d)
	}
	DECQ(rounds)
	JNZ(LabelRef("rounds"))
	VMOVDQU(X0, Mem{Base: sub})
	VMOVDQU(X3, Mem{Base: sub, Disp: 16})
	VEXTRACTI128(U8(1), a, Mem{Base: sub, Disp: 32})
	VEXTRACTI128(U8(1), d, Mem{Base: sub, Disp: 48})
	w.leave()
}

// gather loads 16 bytes for each four lanes: register i gets those numbered i, i+4
// and so on.
func (w *width) gather(from Register) {
	for i := range 4 {
		VMOVDQU(Mem{Base: from, Disp: 16 * i}, xmm[i])
		for quarter := 1; quarter < w.lanes()/4; quarter++ {
			m := Mem{Base: from, Disp: 16 * (4*quarter + i)}
			if w.bytes == 32 {
				VINSERTI128(U8(quarter), m, ymm[i], ymm[i])
			} else {
				VINSERTI32X4(U8(quarter), m, zmm[i], zmm[i])
			}
		}
	}
}
