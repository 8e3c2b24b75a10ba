package sm4xts

import (
	"encoding/binary"
	"math/bits"
)

// Bitsliced SM4 on sixteen blocks at once, without tables and without branches
// on data: its time does not depend on key or text.
//
// A word of SM4 is four bytes; byte r of that word of block k is at bit 16*r + k
// of eight planes, one for each bit of a byte. Rotating a word by whole bytes is
// rotating its planes.

const (
	lanes      = 16 // blocks
	slicedSize = lanes * blockLen
)

// planes is one word of each of sixteen blocks, or a round key.
type planes [8]uint64

// The circuit below is the S-box without its constants:
// S(x) = sbox(x ^ sboxIn) ^ sboxOut. They are folded into the round keys.
const (
	sboxIn  = 0x75
	sboxOut = 0xd3
)

// sbox is the linear part of the SM4 S-box around an inversion in GF(2^8). The
// inversion is that of the AES field, in the circuit of Boyar and Peralta ("A
// small depth-16 circuit for the AES S-box", 2011; names t and z as there): the
// fields are isomorphic. Of the 2040 pairs of linear maps that fit before and
// behind it, this one needs the fewest gates that a randomised search with Boyar
// and Peralta's heuristic found: 20 and 28.
//
// Its planes travel in registers.
func sbox(b0, b1, b2, b3, b4, b5, b6, b7 uint64) (c0, c1, c2, c3, c4, c5, c6, c7 uint64) {
	y9 := b2 ^ b6
	y14 := b1 ^ y9
	y11 := b0 ^ y14
	y7 := b2 ^ y11
	y10 := b5 ^ y11
	y5 := b3 ^ y10
	y3 := b1 ^ y5
	y19 := b3 ^ y3
	y20 := y9 ^ y11
	y1 := y11 ^ b4 ^ y19
	y6 := y10 ^ y1
	y12 := b7 ^ y1
	y4 := y3 ^ y12
	y2 := y9 ^ y4
	y13 := y5 ^ y2
	y15 := b2 ^ y6
	y16 := y7 ^ y1
	y18 := y7 ^ y2
	y21 := y13 ^ y16

	t2 := y12 & y15
	t4 := y3&y6 ^ t2
	t6 := y4&b2 ^ t2
	t7 := y13 & y16
	t9 := y5&y1 ^ t7
	t11 := y2&y7 ^ t7
	t12 := y9 & y11
	t14 := y14&b5 ^ t12
	t16 := b1&y10 ^ t12
	t21 := t4 ^ t14 ^ y20
	t22 := t6 ^ t16 ^ y19
	t23 := t9 ^ t14 ^ y21
	t24 := t11 ^ t16 ^ y18
	t25 := t21 ^ t22
	t26 := t21 & t23
	t27 := t24 ^ t26
	t29 := t25&t27 ^ t22
	t30 := t23 ^ t24
	t31 := t22 ^ t26
	t33 := t31&t30 ^ t24
	t34 := t23 ^ t33
	t35 := t27 ^ t33
	t36 := t24 & t35
	t37 := t36 ^ t34
	t38 := t27 ^ t36
	t40 := t25 ^ t29&t38
	t41 := t40 ^ t37
	t42 := t29 ^ t33
	t43 := t29 ^ t40
	t44 := t33 ^ t37
	t45 := t42 ^ t41
	z0 := t44 & y15
	z1 := t37 & y6
	z2 := t33 & b2
	z3 := t43 & y16
	z4 := t40 & y1
	z5 := t29 & y7
	z6 := t42 & y11
	z7 := t45 & b5
	z8 := t41 & y10
	z9 := t44 & y12
	z10 := t37 & y3
	z11 := t33 & y4
	z12 := t43 & y13
	z13 := t40 & y5
	z14 := t29 & y2
	z15 := t42 & y9
	z16 := t45 & y14
	z17 := t41 & b1

	s0 := z12 ^ z15
	s1 := z14 ^ s0
	s2 := z17 ^ s1
	s3 := z3 ^ z6
	s4 := z5 ^ z8 ^ s3
	s5 := z9 ^ z15 ^ s4
	s6 := z10 ^ s5
	s7 := z16 ^ s6
	s8 := z11 ^ s1 ^ s5
	s9 := z4 ^ s3
	s10 := z2 ^ z8
	s11 := z0 ^ s2 ^ z6 ^ s10
	s12 := z7 ^ s7 ^ s9 ^ s11
	s13 := z1 ^ s9 ^ s10
	return s2 ^ s12, z13 ^ s0 ^ s6, s4 ^ s12, s7 ^ s8, s8, s11 ^ s13, s13, s2
}

// state is sixteen blocks.
type state [4]planes

// slice brings sixteen blocks in a row into planes.
func (s *state) slice(p *[slicedSize]byte) {
	for j := range s {
		w := &s[j]
		for i := range w {
			w[i] = spread(binary.LittleEndian.Uint32(p[blockLen*i+4*j:])) |
				spread(binary.LittleEndian.Uint32(p[blockLen*(i+8)+4*j:]))<<8
		}
		w.transpose()
	}
}

// unslice is the inverse of slice.
func (s *state) unslice(p *[slicedSize]byte) {
	for j := range s {
		w := &s[j]
		w.transpose()
		for i, x := range w {
			binary.LittleEndian.PutUint32(p[blockLen*i+4*j:], gather(x))
			binary.LittleEndian.PutUint32(p[blockLen*(i+8)+4*j:], gather(x>>8))
		}
	}
}

// spread puts four bytes on the even bytes of a word.
func spread(w uint32) uint64 {
	x := uint64(w)
	x = (x | x<<16) & 0x0000ffff0000ffff
	return (x | x<<8) & 0x00ff00ff00ff00ff
}

func gather(x uint64) uint32 {
	x &= 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	return uint32(x | x>>16)
}

// transpose swaps bit i of each byte of word b with bit b of word i.
func (q *planes) transpose() {
	q[0], q[1] = swap(q[0], q[1], 0x5555555555555555, 1)
	q[2], q[3] = swap(q[2], q[3], 0x5555555555555555, 1)
	q[4], q[5] = swap(q[4], q[5], 0x5555555555555555, 1)
	q[6], q[7] = swap(q[6], q[7], 0x5555555555555555, 1)
	q[0], q[2] = swap(q[0], q[2], 0x3333333333333333, 2)
	q[1], q[3] = swap(q[1], q[3], 0x3333333333333333, 2)
	q[4], q[6] = swap(q[4], q[6], 0x3333333333333333, 2)
	q[5], q[7] = swap(q[5], q[7], 0x3333333333333333, 2)
	q[0], q[4] = swap(q[0], q[4], 0x0f0f0f0f0f0f0f0f, 4)
	q[1], q[5] = swap(q[1], q[5], 0x0f0f0f0f0f0f0f0f, 4)
	q[2], q[6] = swap(q[2], q[6], 0x0f0f0f0f0f0f0f0f, 4)
	q[3], q[7] = swap(q[3], q[7], 0x0f0f0f0f0f0f0f0f, 4)
}

func swap(a, b, mask uint64, n uint) (uint64, uint64) {
	t := (a>>n ^ b) & mask
	return a ^ t<<n, b ^ t
}

// slicedKeys is the round keys of a schedule in planes, with the constants of
// the S-box in them.
type slicedKeys [rounds]planes

// slice makes k of w.
//
// What the S-box adds to its output comes out of a round as one constant for
// every byte: the word c. Word i is kept with floor(i/4) times c added to it, so
// c need not be added anywhere: of the three words in the sum of a round key an
// odd or even number has c, and the key makes up for it. The last four words have
// 8c = 0. Counted from the end the pattern is the same, so that decryption takes
// the same keys backwards.
func (k *slicedKeys) slice(w *schedule) {
	const c = sboxOut<<2&0xff | sboxOut>>6
	for i := range k {
		fold := byte(sboxIn)
		for j := i + 1; j <= i+3; j++ {
			if j/4%2 == 1 {
				fold ^= c
			}
		}
		x := w[i] ^ uint32(fold)*(repeat&0xffffffff)
		for b := range k[i] {
			y := uint64(x >> b)
			y = y&1 | y<<8&(1<<16) | y<<16&(1<<32) | y<<24&(1<<48) // a bit of each byte
			k[i][b] = y * 0xffff
		}
	}
}

// encrypt encrypts the sixteen blocks; the words of the result are in place.
func (s *state) encrypt(k *slicedKeys) {
	for i := 0; i < rounds; i += 4 {
		s[0].round(&s[1], &s[2], &s[3], &k[i])
		s[1].round(&s[2], &s[3], &s[0], &k[i+1])
		s[2].round(&s[3], &s[0], &s[1], &k[i+2])
		s[3].round(&s[0], &s[1], &s[2], &k[i+3])
	}
	s[0], s[1], s[2], s[3] = s[3], s[2], s[1], s[0]
}

// decrypt is the inverse of encrypt.
func (s *state) decrypt(k *slicedKeys) {
	for i := rounds; i > 0; i -= 4 {
		s[0].round(&s[1], &s[2], &s[3], &k[i-1])
		s[1].round(&s[2], &s[3], &s[0], &k[i-2])
		s[2].round(&s[3], &s[0], &s[1], &k[i-3])
		s[3].round(&s[0], &s[1], &s[2], &k[i-4])
	}
	s[0], s[1], s[2], s[3] = s[3], s[2], s[1], s[0]
}

// round adds L(S(b ^ c ^ d ^ k)) to a.
//
// L(x) is x plus x rotated by 2, 10, 18 and 24 bits. With v the bytes of x each
// rotated by 2 bits, w = x plus the bytes of x shifted down by 6, and R a
// rotation of the word by one byte, it is q + v + R³(q) where q = w + R²(v): two
// rotations of words instead of four, and none across bytes.
func (a *planes) round(b, c, d, k *planes) {
	x0, x1, x2, x3, x4, x5, x6, x7 := sbox(
		b[0]^c[0]^d[0]^k[0], b[1]^c[1]^d[1]^k[1], b[2]^c[2]^d[2]^k[2], b[3]^c[3]^d[3]^k[3],
		b[4]^c[4]^d[4]^k[4], b[5]^c[5]^d[5]^k[5], b[6]^c[6]^d[6]^k[6], b[7]^c[7]^d[7]^k[7])
	a[0] ^= diffuse(x0^x6, x6)
	a[1] ^= diffuse(x1^x7, x7)
	a[2] ^= diffuse(x2, x0)
	a[3] ^= diffuse(x3, x1)
	a[4] ^= diffuse(x4, x2)
	a[5] ^= diffuse(x5, x3)
	a[6] ^= diffuse(x6, x4)
	a[7] ^= diffuse(x7, x5)
}

func diffuse(w, v uint64) uint64 {
	q := w ^ bits.RotateLeft64(v, 32)
	return q ^ v ^ bits.RotateLeft64(q, 16)
}
