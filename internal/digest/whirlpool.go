package digest

import (
	"encoding/binary"
	"math/bits"
)

// whirlpool is ISO/IEC 10118-3:2004, dedicated hash function 7. The number of bits
// is kept in 64 of the 256 that the padding has: nobody hashes 2 EiB.
type whirlpool struct {
	h       [8]uint64
	k, s, t [8]uint64 // round key, state, and the next of either
	buf     [64]byte
	n       int
	total   uint64
}

const whirlpoolRounds = 10

// whirlpoolTable has for each byte the row that it adds to the product with the
// circulant matrix of 1, 1, 4, 1, 8, 5, 2, 9; whirlpoolKeys the round constants.
var (
	whirlpoolTable [256]uint64
	whirlpoolKeys  [whirlpoolRounds]uint64
)

// The S-box consists of three small ones: E, its inverse, and R.
func init() {
	e := [16]byte{0x1, 0xb, 0x9, 0xc, 0xd, 0x6, 0xf, 0x3, 0xe, 0x8, 0x7, 0x4, 0xa, 0x2, 0x5, 0x0}
	r := [16]byte{0x7, 0xc, 0xb, 0xd, 0xe, 0x4, 0x9, 0xf, 0x6, 0x3, 0x8, 0xa, 0x2, 0x5, 0x1, 0x0}
	var inverse [16]byte
	for i, x := range e {
		inverse[x] = byte(i)
	}
	var sbox [256]byte
	for i := range sbox {
		hi, lo := e[i>>4], inverse[i&15]
		mid := r[hi^lo]
		sbox[i] = e[hi^mid]<<4 | inverse[lo^mid]
	}
	double := func(x byte) byte { // in GF(2^8) modulo x^8+x^4+x^3+x^2+1
		if x&0x80 != 0 {
			return x<<1 ^ 0x1d
		}
		return x << 1
	}
	for i, x := range sbox {
		x2 := double(x)
		x4 := double(x2)
		x8 := double(x4)
		whirlpoolTable[i] = binary.BigEndian.Uint64([]byte{x, x, x4, x, x8, x4 ^ x, x2, x8 ^ x})
	}
	for i := range whirlpoolKeys {
		whirlpoolKeys[i] = binary.BigEndian.Uint64(sbox[8*i:])
	}
}

func (d *whirlpool) Size() int      { return 64 }
func (d *whirlpool) BlockSize() int { return 64 }
func (d *whirlpool) Reset()         { *d = whirlpool{} }

func (d *whirlpool) Write(p []byte) (int, error) {
	d.total += uint64(len(p))
	for rest := p; len(rest) > 0; {
		n := copy(d.buf[d.n:], rest)
		rest = rest[n:]
		if d.n += n; d.n == len(d.buf) {
			d.block()
			d.n = 0
		}
	}
	return len(p), nil
}

func (d *whirlpool) Sum(b []byte) []byte {
	c := *d
	c.buf[c.n] = 0x80
	clear(c.buf[c.n+1:])
	if c.n >= 32 {
		c.block()
		clear(c.buf[:])
	}
	binary.BigEndian.PutUint64(c.buf[56:], 8*c.total)
	c.block()
	for _, x := range c.h {
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return b
}

func (d *whirlpool) block() {
	d.k = d.h
	for i := range d.s {
		x := binary.BigEndian.Uint64(d.buf[8*i:])
		d.s[i] = x ^ d.k[i]
		d.h[i] ^= x
	}
	for round := range whirlpoolRounds {
		d.product(&d.k)
		d.t[0] ^= whirlpoolKeys[round]
		d.k = d.t
		d.product(&d.s)
		for i := range d.s {
			d.s[i] = d.t[i] ^ d.k[i]
		}
	}
	for i := range d.h {
		d.h[i] ^= d.s[i]
	}
}

// product brings into t what substitution, shift of the columns and the matrix make
// of x.
func (d *whirlpool) product(x *[8]uint64) {
	t, rol := &whirlpoolTable, bits.RotateLeft64
	for i := range d.t {
		d.t[i] = t[x[i]>>56] ^ rol(t[byte(x[(i+7)&7]>>48)], -8) ^ rol(t[byte(x[(i+6)&7]>>40)], -16) ^
			rol(t[byte(x[(i+5)&7]>>32)], -24) ^ rol(t[byte(x[(i+4)&7]>>24)], -32) ^ rol(t[byte(x[(i+3)&7]>>16)], -40) ^
			rol(t[byte(x[(i+2)&7]>>8)], -48) ^ rol(t[byte(x[(i+1)&7])], -56)
	}
}
