package argon2

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// blake is BLAKE2b without a key (RFC 7693). All that it computes with is in the
// struct, which is in key memory, where a library has it on the heap and the
// stack. It hashes some KiB for a derivation, so it need not be fast.
type blake struct {
	h     [8]uint64
	v, m  [16]uint64
	buf   [128]byte
	n     int // bytes in buf
	total uint64
	size  int // bytes of the digest
}

var iv = [8]uint64{
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
}

var sigma = [10][16]byte{
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	{14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
	{11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
	{7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
	{9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
	{2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
	{12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
	{13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
	{6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
	{10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
}

// reset begins a digest of size bytes, 1 to 64.
func (b *blake) reset(size int) {
	b.h = iv
	b.h[0] ^= 0x01010000 ^ uint64(size)
	b.n, b.total, b.size = 0, 0, size
}

func (b *blake) write(p []byte) {
	for len(p) > 0 {
		if b.n == len(b.buf) { // not sooner: the last block is another
			b.compress(0)
		}
		n := copy(b.buf[b.n:], p)
		b.n += n
		p = p[n:]
	}
}

// number writes four bytes.
func (b *blake) number(n int) {
	var le [4]byte
	binary.LittleEndian.PutUint32(le[:], uint32(n))
	b.write(le[:])
}

// sum writes the digest into dst, which has room for it.
func (b *blake) sum(dst []byte) {
	clear(b.buf[b.n:])
	b.compress(^uint64(0))
	for i := range b.size {
		dst[i] = byte(b.h[i/8] >> (8 * (i % 8)))
	}
}

func (b *blake) compress(last uint64) {
	b.total += uint64(b.n)
	b.n = 0
	for i := range b.m {
		b.m[i] = binary.LittleEndian.Uint64(b.buf[8*i:])
	}
	v := &b.v
	copy(v[:8], b.h[:])
	copy(v[8:], iv[:])
	v[12] ^= b.total
	v[14] ^= last
	for round := range 12 {
		s := &sigma[round%10]
		for i := range 4 {
			b.mix(i, 4+i, 8+i, 12+i, s[2*i], s[2*i+1])
		}
		for i := range 4 {
			b.mix(i, 4+(i+1)%4, 8+(i+2)%4, 12+(i+3)%4, s[8+2*i], s[9+2*i])
		}
	}
	for i := range b.h {
		b.h[i] ^= v[i] ^ v[i+8]
	}
}

func (b *blake) mix(i, j, k, l int, x, y byte) {
	v, m := &b.v, &b.m
	v[i] += v[j] + m[x]
	v[l] = bits.RotateLeft64(v[l]^v[i], -32)
	v[k] += v[l]
	v[j] = bits.RotateLeft64(v[j]^v[k], -24)
	v[i] += v[j] + m[y]
	v[l] = bits.RotateLeft64(v[l]^v[i], -16)
	v[k] += v[l]
	v[j] = bits.RotateLeft64(v[j]^v[k], -63)
}

// long fills dst with the hash of variable length: RFC 9106, section 3.3. room is
// overwritten; src is not in it.
func (b *blake) long(dst, src []byte, room *[64]byte) {
	b.reset(min(len(dst), 64))
	b.number(len(dst))
	b.write(src)
	for {
		b.sum(room[:])
		if len(dst) <= 64 {
			copy(dst, room[:])
			return
		}
		dst = dst[copy(dst, room[:32]):]
		b.reset(min(len(dst), 64))
		b.write(room[:])
	}
}

// fromLittleEndian turns bytes in little-endian order into words, or back.
func fromLittleEndian(b *block) {
	one := uint16(1)
	if *(*byte)(unsafe.Pointer(&one)) == 1 {
		return
	}
	for i := range b {
		b[i] = bits.ReverseBytes64(b[i])
	}
}
