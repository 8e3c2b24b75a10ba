package adiantum

import (
	"encoding/binary"
	"math/bits"
)

const chachaBlock = 64 // bytes

// The words of every first row: "expand 32-byte k".
const sigma0, sigma1, sigma2, sigma3 = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574

func quarter(a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	a += b
	d = bits.RotateLeft32(d^a, 16)
	c += d
	b = bits.RotateLeft32(b^c, 12)
	a += b
	d = bits.RotateLeft32(d^a, 8)
	c += d
	b = bits.RotateLeft32(b^c, 7)
	return a, b, c, d
}

// permute sets x to the constant first row, the key and the last row after the
// rounds of ChaCha (Bernstein, "ChaCha, a variant of Salsa20", 2008).
func permute(x *[16]uint32, key *[8]uint32, n0, n1, n2, n3 uint32, rounds int) {
	x0, x1, x2, x3 := uint32(sigma0), uint32(sigma1), uint32(sigma2), uint32(sigma3)
	x4, x5, x6, x7 := key[0], key[1], key[2], key[3]
	x8, x9, x10, x11 := key[4], key[5], key[6], key[7]
	x12, x13, x14, x15 := n0, n1, n2, n3
	for range rounds / 2 {
		x0, x4, x8, x12 = quarter(x0, x4, x8, x12)
		x1, x5, x9, x13 = quarter(x1, x5, x9, x13)
		x2, x6, x10, x14 = quarter(x2, x6, x10, x14)
		x3, x7, x11, x15 = quarter(x3, x7, x11, x15)
		x0, x5, x10, x15 = quarter(x0, x5, x10, x15)
		x1, x6, x11, x12 = quarter(x1, x6, x11, x12)
		x2, x7, x8, x13 = quarter(x2, x7, x8, x13)
		x3, x4, x9, x14 = quarter(x3, x4, x9, x14)
	}
	*x = [16]uint32{x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15}
}

// forget erases a state; the compiler neither inlines nor removes it.
//
//go:noinline
func forget(x *[16]uint32) { *x = [16]uint32{} }

// hchacha makes the key of the stream that belongs to the first 16 bytes of an
// XChaCha nonce (draft-irtf-cfrg-xchacha-03, section 2.2).
func hchacha(sub, key *[8]uint32, nonce *[16]byte, rounds int) {
	var x [16]uint32
	permute(&x, key, binary.LittleEndian.Uint32(nonce[0:]), binary.LittleEndian.Uint32(nonce[4:]),
		binary.LittleEndian.Uint32(nonce[8:]), binary.LittleEndian.Uint32(nonce[12:]), rounds)
	copy(sub[:4], x[:4])
	copy(sub[4:], x[12:])
	forget(&x)
}

// chachaXOR writes src xor block counter of the stream to dst; they are 64 bytes
// or, at the end, fewer. nonce is the third word of the last row, the others are
// zero.
func chachaXOR(dst, src []byte, key *[8]uint32, counter, nonce uint32, rounds int) {
	var x [16]uint32
	permute(&x, key, counter, 0, nonce, 0, rounds)
	x[0] += sigma0
	x[1] += sigma1
	x[2] += sigma2
	x[3] += sigma3
	for i, k := range key {
		x[4+i] += k
	}
	x[12] += counter
	x[14] += nonce
	for i, w := range &x { // not a copy, which would stay
		if 4*i >= len(src) {
			break
		}
		binary.LittleEndian.PutUint32(dst[4*i:], binary.LittleEndian.Uint32(src[4*i:])^w)
	}
	forget(&x)
}
