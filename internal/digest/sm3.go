package digest

import (
	"encoding/binary"
	"math/bits"
)

// sm3 is GB/T 32905-2016 (ISO/IEC 10118-3:2018, dedicated hash function 17).
type sm3 struct {
	h     [8]uint32
	w     [68]uint32 // the expanded block: here, so that it is not on the stack
	buf   [64]byte
	n     int
	total uint64
}

var sm3IV = [8]uint32{0x7380166f, 0x4914b2b9, 0x172442d7, 0xda8a0600, 0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e}

func (d *sm3) Size() int      { return 32 }
func (d *sm3) BlockSize() int { return 64 }
func (d *sm3) Reset()         { *d = sm3{h: sm3IV} }

func (d *sm3) Write(p []byte) (int, error) {
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

func (d *sm3) Sum(b []byte) []byte {
	c := *d
	c.buf[c.n] = 0x80
	clear(c.buf[c.n+1:])
	if c.n >= 56 {
		c.block()
		clear(c.buf[:])
	}
	binary.BigEndian.PutUint64(c.buf[56:], 8*c.total)
	c.block()
	for _, x := range c.h {
		b = binary.BigEndian.AppendUint32(b, x)
	}
	return b
}

func (d *sm3) block() {
	rol := bits.RotateLeft32
	w := &d.w
	for i := range 16 {
		w[i] = binary.BigEndian.Uint32(d.buf[4*i:])
	}
	for i := 16; i < len(w); i++ {
		x := w[i-16] ^ w[i-9] ^ rol(w[i-3], 15)
		w[i] = x ^ rol(x, 15) ^ rol(x, 23) ^ rol(w[i-13], 7) ^ w[i-6]
	}
	a, b, c, d4, e, f, g, h := d.h[0], d.h[1], d.h[2], d.h[3], d.h[4], d.h[5], d.h[6], d.h[7]
	for i := range 64 {
		t, ff, gg := uint32(0x79cc4519), a^b^c, e^f^g
		if i >= 16 {
			t, ff, gg = 0x7a879d8a, a&b|a&c|b&c, e&f|^e&g
		}
		s1 := rol(rol(a, 12)+e+rol(t, i), 7) // rotated by i modulo 32
		s2 := s1 ^ rol(a, 12)
		t1 := ff + d4 + s2 + (w[i] ^ w[i+4])
		t2 := gg + h + s1 + w[i]
		a, b, c, d4 = t1, a, rol(b, 9), c
		e, f, g, h = t2^rol(t2, 9)^rol(t2, 17), e, rol(f, 19), g
	}
	for i, x := range [8]uint32{a, b, c, d4, e, f, g, h} {
		d.h[i] ^= x
	}
}
