package adiantum

import (
	"encoding/binary"
	"math/bits"
)

// Poly1305 without its final addition, which Adiantum leaves out: a polynomial
// over the integers modulo 2^130-5 whose coefficients are the blocks of the
// message, each with a bit above it.

// element is a number below 2^192 that stands for its residue, lowest word first.
// It is no array, because those stay in memory.
type element struct{ w0, w1, w2 uint64 }

// clamped reads the point at which a polynomial is evaluated. The bits that
// Poly1305 clears keep the products of mul short.
func clamped(b []byte) [2]uint64 {
	return [2]uint64{
		binary.LittleEndian.Uint64(b) & 0x0ffffffc0fffffff,
		binary.LittleEndian.Uint64(b[8:]) & 0x0ffffffc0ffffffc,
	}
}

// plus is a + b; the sum must be below 2^192.
func (a element) plus(b element) element {
	w0, c := bits.Add64(a.w0, b.w0, 0)
	w1, c := bits.Add64(a.w1, b.w1, c)
	return element{w0, w1, a.w2 + b.w2 + c}
}

// scaled is n times a, which must be below 2^131; n is small.
func (a element) scaled(n uint64) element {
	h0, w0 := bits.Mul64(a.w0, n)
	h1, w1 := bits.Mul64(a.w1, n)
	w1, c := bits.Add64(w1, h0, 0)
	return element{w0, w1, a.w2*n + h1 + c}
}

// times is h multiplied by a clamped number; h must be below 2^131.
//
// What would be at 2^128 and above is brought back at once: 2^130 is 5, and the
// two lowest bits of r1 are clear, so r1·2^128 is 5·(r1/4).
func (h element) times(r0, r1 uint64) element {
	s := r1 + r1>>2

	d0h, d0l := bits.Mul64(h.w0, r0)
	xh, xl := bits.Mul64(h.w1, s)
	d0l, c := bits.Add64(d0l, xl, 0)
	d0h += xh + c

	d1h, d1l := bits.Mul64(h.w0, r1)
	xh, xl = bits.Mul64(h.w1, r0)
	d1l, c = bits.Add64(d1l, xl, 0)
	d1h += xh + c
	d1l, c = bits.Add64(d1l, h.w2*s, 0)
	d1h += c

	d1l, c = bits.Add64(d1l, d0h, 0)
	return element{d0l, d1l, h.w2*r0 + d1h + c}.fold()
}

// fold brings what is above 2^130 back: the result is below 2^130 + 2^64.
func (h element) fold() element {
	top := h.w2
	h.w2 = top & 3
	return h.plus(element{top>>2 + top&^3, 0, 0})
}

// low returns the lowest 128 bits of the residue.
func (h element) low() (lo, hi uint64) {
	h = h.fold()
	// The prime is to be subtracted once, or not: h+5 reaches 2^130 if it is.
	t := h.plus(element{5, 0, 0})
	mask := -(t.w2 >> 2)
	return h.w0&^mask | t.w0&mask, h.w1&^mask | t.w1&mask
}

// headerKey evaluates the polynomial of a header: the length of the message in
// bits, and the number of the data unit, three blocks in all. The numbers of a
// run differ by one in the second block, so their values differ by the square of
// r.
type headerKey struct {
	r      [2]uint64
	square element // r²
	length element // the first block times r, plus the bit above the second
}

// set prepares for messages of n bytes.
func (k *headerKey) set(r [2]uint64, n int) {
	k.r = r
	k.square = element{r[0], r[1], 0}.times(r[0], r[1])
	k.length = element{8 * uint64(n), 0, 1}.times(r[0], r[1])
	k.length.w2++
}

// value is that of one data unit; that of the next is it plus the square.
func (k *headerKey) value(dun [4]uint64) element {
	h := k.length.plus(element{dun[0], dun[1], 0}).times(k.r[0], k.r[1])
	return h.plus(element{dun[2], dun[3], 1}).times(k.r[0], k.r[1])
}

// nhPoly1305 is the value of a message of whole NH units: NH makes four words of
// each kilobyte, which are two blocks of a polynomial.
func (k *keys) nhPoly1305(m []byte) (lo, hi uint64) {
	var h element
	for len(m) > 0 {
		n := min(len(m), nhChunk)
		s := nh(&k.nh, m[:n])
		h = h.plus(element{s[0], s[1], 1}).times(k.m[0], k.m[1])
		h = h.plus(element{s[2], s[3], 1}).times(k.m[0], k.m[1])
		m = m[n:]
	}
	return h.low()
}
