package fscrypt

import (
	"encoding/binary"
	"math/bits"
)

// sipHash is SipHash-2-4 (Aumasson and Bernstein, 2012) of m under key, 16 bytes.
func sipHash(key, m []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key), binary.LittleEndian.Uint64(key[8:])
	// "somepseudorandomlygeneratedbytes"
	v := sipState{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	last := uint64(len(m)) << 56
	for ; len(m) >= 8; m = m[8:] {
		v.take(binary.LittleEndian.Uint64(m))
	}
	for i, b := range m {
		last |= uint64(b) << (8 * i)
	}
	v.take(last)
	v.v2 ^= 0xff
	for range 4 {
		v.round()
	}
	return v.v0 ^ v.v1 ^ v.v2 ^ v.v3
}

type sipState struct{ v0, v1, v2, v3 uint64 }

func (v *sipState) take(m uint64) {
	v.v3 ^= m
	v.round()
	v.round()
	v.v0 ^= m
}

func (v *sipState) round() {
	v.v0 += v.v1
	v.v1 = bits.RotateLeft64(v.v1, 13) ^ v.v0
	v.v0 = bits.RotateLeft64(v.v0, 32)
	v.v2 += v.v3
	v.v3 = bits.RotateLeft64(v.v3, 16) ^ v.v2
	v.v0 += v.v3
	v.v3 = bits.RotateLeft64(v.v3, 21) ^ v.v0
	v.v2 += v.v1
	v.v1 = bits.RotateLeft64(v.v1, 17) ^ v.v2
	v.v2 = bits.RotateLeft64(v.v2, 32)
}
