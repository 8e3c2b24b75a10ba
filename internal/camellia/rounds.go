package camellia

import (
	"math/bits"

	"keyway/internal/aes"
)

// planes are a half of eight blocks: word p has bit p of all their bytes, and in it
// byte i, the highest being the first of the half, has a bit for each block.
type planes [8]uint64

func (q *planes) transpose() { aes.Transpose((*[8]uint64)(q)) }

//go:noinline
func (q *planes) wipe() { *q = planes{} }

// Bytes of a half, in planes.
const (
	byte1 = 0xff << 56
	byte2 = 0xff << 48
	byte3 = 0xff << 40
	byte4 = 0xff << 32
	byte5 = 0xff << 24
	byte6 = 0xff << 16
	byte7 = 0xff << 8
	byte8 = 0xff

	// The S-boxes beside the first, and whose bytes they are: the second and the third
	// are it with the result rotated by a bit to the left and to the right, the fourth
	// with the argument rotated to the left.
	second = byte2 | byte5
	third  = byte3 | byte6
	fourth = byte4 | byte7
)

// What the maps before and after the inversion add: to the argument of the first
// S-box 0xc5, to its result 0x6e. As a half: that before is part of the round keys.
const (
	before = 0xc5c5c5e2c5c5e2c5
	after  = 0x6edc376edc376e6e
)

var afterPlanes = constant(after)

// constant is a half that is the same in all blocks.
func constant(x uint64) (q planes) {
	for p := range q {
		q[p] = (x >> p & 0x0101010101010101) * 0xff
	}
	return q
}

// round adds the function F of x under key k to d (RFC 3713, section 2.4.1).
func round(d, x, k *planes) {
	// The argument, with that of the fourth S-box rotated.
	x0, x1, x2, x3, x4, x5, x6, x7 := x[0]^k[0], x[1]^k[1], x[2]^k[2], x[3]^k[3], x[4]^k[4], x[5]^k[5], x[6]^k[6], x[7]^k[7]
	x0, x1, x2, x3, x4, x5, x6, x7 =
		x0&^fourth|x7&fourth, x1&^fourth|x0&fourth, x2&^fourth|x1&fourth, x3&^fourth|x2&fourth,
		x4&^fourth|x3&fourth, x5&^fourth|x4&fourth, x6&^fourth|x5&fourth, x7&^fourth|x6&fourth
	// Into the field of AES, and out of it again, with what its S-box does beside
	// the inversion undone. Of all such maps these have the fewest sums.
	x13, x14 := x1^x3, x1^x4
	s := planes{x1 ^ x7, x14, x13 ^ x2, x14 ^ x6, x1 ^ x5, x0 ^ x3 ^ x5 ^ x7, x13, x13 ^ x2 ^ x5}
	aes.SubPlanes((*[8]uint64)(&s))
	s03, s04 := s[0]^s[3], s[0]^s[4]
	x0, x1, x2, x3 = s04^s[1], s03, s[0]^s[5], s03^s[1]^s[2]^s[7]
	x4, x5, x6, x7 = s03^s[4]^s[5], s[2]^s[4]^s[7], s[6], s03^s[4]^s[6]^s[7]

	const first = ^uint64(second | third)
	mix(d, 0, x0&first|x7&second|x1&third)
	mix(d, 1, x1&first|x0&second|x2&third)
	mix(d, 2, x2&first|x1&second|x3&third)
	mix(d, 3, x3&first|x2&second|x4&third)
	mix(d, 4, x4&first|x3&second|x5&third)
	mix(d, 5, x5&first|x4&second|x6&third)
	mix(d, 6, x6&first|x5&second|x7&third)
	mix(d, 7, x7&first|x6&second|x0&third)
}

// mix adds the P function of plane p to d: sums of bytes of a half.
func mix(d *planes, p int, x uint64) {
	x ^= afterPlanes[p]
	l, r := uint32(x>>32), uint32(x)
	l ^= bits.RotateLeft32(r, 8)
	r ^= bits.RotateLeft32(l, 16)
	l ^= bits.RotateLeft32(r, -8)
	r ^= bits.RotateLeft32(l, -8)
	d[p] ^= uint64(r)<<32 | uint64(l)
}

// fl and unfl are FL and its inverse (RFC 3713, section 2.4.2). A half is two words,
// that of its first four bytes above the other.
func fl(x, k *planes) {
	x.rotated(k)
	x.either(k)
}

func unfl(x, k *planes) {
	x.either(k)
	x.rotated(k)
}

// rotated adds the high word, masked by that of the key and rotated to the left by a
// bit, to the low one.
func (q *planes) rotated(k *planes) {
	carry := bits.RotateLeft32(uint32((q[7]&k[7])>>32), 8) // from each byte to that above
	for p := range q {
		out := uint32((q[p] & k[p]) >> 32)
		q[p] ^= uint64(carry)
		carry = out
	}
}

// either adds the low word, or the key's, to the high one.
func (q *planes) either(k *planes) {
	for p := range q {
		q[p] ^= (q[p] | k[p]) << 32
	}
}

// crypt passes both halves through all rounds; they come out swapped. Decryption is
// encryption with the subkeys backwards, but for the order of those at either end.
func crypt(left, right *planes, rk []planes, decrypt bool) {
	at, step := 2, 1
	start, end := rk[:2], rk[len(rk)-2:]
	if decrypt {
		at, step = len(rk)-3, -1
		start, end = end, start
	}
	left.add(&start[0])
	right.add(&start[1])
	for left1 := len(rk) - 4; ; {
		for range 3 {
			round(right, left, &rk[at])
			round(left, right, &rk[at+step])
			at += 2 * step
		}
		if left1 -= 8; left1 < 0 {
			break
		}
		fl(left, &rk[at])
		unfl(right, &rk[at+step])
		at += 2 * step
	}
	right.add(&end[0])
	left.add(&end[1])
}

func (q *planes) add(k *planes) {
	for p := range q {
		q[p] ^= k[p]
	}
}
