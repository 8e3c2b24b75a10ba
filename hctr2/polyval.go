package hctr2

import (
	"encoding/binary"
	"math/bits"
)

// POLYVAL (RFC 8452, section 3) in portable Go and constant time. Elements of its
// field are 128 bits, little endian, modulo x^128 + x^127 + x^126 + x^121 + 1.

// element is one of them, the low half first.
type element = [2]uint64

// dot is a·b·x^-128, the product that POLYVAL is defined by. The low half of the
// product is added to the high one 64 bits at a time: what stands below x^64 is
// divisible by it once the modulus times those bits has been added.
//
//go:norace
func dot(a, b *element) (lo, hi uint64) {
	h0, l0 := carryless(a[0], b[0])
	h2, l2 := carryless(a[1], b[1])
	h1, l1 := carryless(a[0]^a[1], b[0]^b[1]) // Karatsuba
	h1, l1 = h1^h0^h2, l1^l0^l2
	x0, x1, x2, x3 := l0, h0^l1, l2^h1, h2

	x1 ^= x0<<63 ^ x0<<62 ^ x0<<57
	x2 ^= x0 ^ x0>>1 ^ x0>>2 ^ x0>>7
	x2 ^= x1<<63 ^ x1<<62 ^ x1<<57
	x3 ^= x1 ^ x1>>1 ^ x1>>2 ^ x1>>7
	return x2, x3
}

// carryless is the product of two polynomials over GF(2). The high half is the low
// half of the product of both backwards, backwards and without its last bit.
func carryless(x, y uint64) (hi, lo uint64) {
	return bits.Reverse64(low(bits.Reverse64(x), bits.Reverse64(y))) >> 1, low(x, y)
}

// low is the low half of a carry-less product: integer products of numbers in which
// only every fourth bit may be set have the sums of the right bits at these places,
// and carries in between, up to the last place, whose carry is beyond.
func low(x, y uint64) uint64 {
	const m0, m1, m2, m3 = 0x1111111111111111, 0x2222222222222222, 0x4444444444444444, 0x8888888888888888
	x0, x1, x2, x3 := x&m0, x&m1, x&m2, x&m3
	y0, y1, y2, y3 := y&m0, y&m1, y&m2, y&m3
	return (x0*y0^x1*y3^x2*y2^x3*y1)&m0 |
		(x0*y1^x1*y0^x2*y3^x3*y2)&m1 |
		(x0*y2^x1*y1^x2*y0^x3*y3)&m2 |
		(x0*y3^x1*y2^x2*y1^x3*y0)&m3
}

// polyval goes on with the hash sum over b, whole blocks, under key h.
//
//go:norace
func polyval(sum, h *element, b []byte) {
	for ; len(b) > 0; b = b[blockLen:] {
		sum[0] ^= binary.LittleEndian.Uint64(b)
		sum[1] ^= binary.LittleEndian.Uint64(b[8:])
		sum[0], sum[1] = dot(sum, h)
	}
}
