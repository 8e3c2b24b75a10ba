package sm4xts

import (
	"encoding/binary"
	"math/bits"
)

const rounds = 32

// A schedule is the round keys of one SM4 key in order of encryption; decryption
// takes them backwards. The bytes of a word are in memory order, the first one
// lowest: that is how every implementation holds the words of a block.
type schedule [rounds]uint32

// expand makes the round keys of both halves of key (GB/T 32907-2016, section
// 7.3): side by side, since each S-box waits for the one before it.
func expand(data, tweak *schedule, key []byte) {
	family := [4]uint32{0xa3b1bac6, 0x56aa3350, 0x677d9197, 0xb27022dc}
	var k [4]uint64 // the tweak key's word high, the data key's low
	for i, f := range family {
		k[i] = uint64(binary.BigEndian.Uint32(key[16+4*i:])^f)<<32 |
			uint64(binary.BigEndian.Uint32(key[4*i:])^f)
	}
	for i := range rounds {
		// The round constant: byte j, the most significant first, is (4i+j)*7.
		ck := uint32(28*i)&0xff<<24 | uint32(28*i+7)&0xff<<16 | uint32(28*i+14)&0xff<<8 | uint32(28*i+21)&0xff
		x := substitute(k[1] ^ k[2] ^ k[3] ^ uint64(ck)<<32 ^ uint64(ck))
		lo, hi := uint32(x), uint32(x>>32)
		lo ^= bits.RotateLeft32(lo, 13) ^ bits.RotateLeft32(lo, 23)
		hi ^= bits.RotateLeft32(hi, 13) ^ bits.RotateLeft32(hi, 23)
		x = k[0] ^ uint64(hi)<<32 ^ uint64(lo)
		k[0], k[1], k[2], k[3] = k[1], k[2], k[3], x
		data[i] = bits.ReverseBytes32(uint32(x))
		tweak[i] = bits.ReverseBytes32(uint32(x >> 32))
	}
	wipe(&k)
}

// wipe clears what held key bytes; the compiler neither inlines nor removes it.
//
//go:noinline
func wipe[T any](p *T) {
	var zero T
	*p = zero
}

// substitute applies the S-box to the eight bytes of x.
func substitute(x uint64) uint64 {
	x = transpose8(x ^ repeat*sboxIn)
	c0, c1, c2, c3, c4, c5, c6, c7 := sbox(x, x>>8, x>>16, x>>24, x>>32, x>>40, x>>48, x>>56)
	x = c0&0xff | c1&0xff<<8 | c2&0xff<<16 | c3&0xff<<24 |
		c4&0xff<<32 | c5&0xff<<40 | c6&0xff<<48 | c7<<56
	return transpose8(x) ^ repeat*sboxOut
}

const repeat = 0x0101010101010101 // times a byte: that byte eight times

// transpose8 swaps bit b of byte i with bit i of byte b.
func transpose8(x uint64) uint64 {
	x = swap8(x, 0x00aa00aa00aa00aa, 7)
	x = swap8(x, 0x0000cccc0000cccc, 14)
	return swap8(x, 0x00000000f0f0f0f0, 28)
}

func swap8(x, mask uint64, n uint) uint64 {
	t := (x ^ x>>n) & mask
	return x ^ t ^ t<<n
}
