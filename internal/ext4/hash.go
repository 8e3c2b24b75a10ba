package ext4

import "math/bits"

// Kinds of hashes of names, as the superblock and the index of a directory number
// them. The unsigned ones are not on the medium: a flag of the superblock says so.
const (
	hashLegacy  = 0
	hashHalfMD4 = 1
	hashTEA     = 2
	hashSipHash = 6 // encrypted and casefolded: beside the name
)

// nameHash returns the hash by which a directory is indexed, in two words of which
// the first is even.
func (s *super) nameHash(version byte, name []byte) (hash, minor uint32) {
	seed := s.hashSeed
	if seed == [4]uint32{} {
		seed = [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	}
	switch version {
	case hashLegacy:
		hash = s.legacyHash(name)
	case hashHalfMD4:
		for p := name; ; p = p[32:] {
			halfMD4(&seed, s.pack(p, 8))
			if len(p) <= 32 {
				break
			}
		}
		hash, minor = seed[1], seed[2]
	case hashTEA:
		for p := name; ; p = p[16:] {
			tea(&seed, s.pack(p, 4))
			if len(p) <= 16 {
				break
			}
		}
		hash, minor = seed[0], seed[1]
	}
	hash &^= 1
	if hash == 0xfffffffe { // the end of a directory, for whoever seeks in it
		hash = 0xfffffffc
	}
	return hash, minor
}

func (s *super) char(c byte) uint32 {
	if s.hashSigned {
		return uint32(int32(int8(c)))
	}
	return uint32(c)
}

func (s *super) legacyHash(name []byte) uint32 {
	h0, h1 := uint32(0x12a3fe2d), uint32(0x37abe8f9)
	for _, c := range name {
		h := h1 + (h0 ^ s.char(c)*7152373)
		if h&0x80000000 != 0 {
			h -= 0x7fffffff
		}
		h0, h1 = h, h0
	}
	return h0 << 1
}

// pack makes n words of the beginning of a name, filled up with its length.
func (s *super) pack(name []byte, n int) (out [8]uint32) {
	pad := uint32(len(name)) * 0x01010101
	for i := range n {
		out[i] = pad
	}
	val := pad
	for i, c := range name[:min(len(name), 4*n)] {
		val = s.char(c) + val<<8
		out[i/4] = val
		if i%4 == 3 {
			val = pad
		}
	}
	return out
}

// halfMD4 is MD4's compression with eight words and three rounds of eight steps.
func halfMD4(state *[4]uint32, in [8]uint32) {
	a, b, c, d := state[0], state[1], state[2], state[3]
	for i, k := range [24]struct{ word, turn byte }{
		{0, 3}, {1, 7}, {2, 11}, {3, 19}, {4, 3}, {5, 7}, {6, 11}, {7, 19},
		{1, 3}, {3, 5}, {5, 9}, {7, 13}, {0, 3}, {2, 5}, {4, 9}, {6, 13},
		{3, 3}, {7, 9}, {2, 11}, {6, 15}, {1, 3}, {5, 9}, {0, 11}, {4, 15},
	} {
		var mix uint32
		switch i / 8 {
		case 0:
			mix = d ^ b&(c^d)
		case 1:
			mix = b&c + (b^c)&d + 0x5a827999
		case 2:
			mix = b ^ c ^ d + 0x6ed9eba1
		}
		a, b, c, d = d, bits.RotateLeft32(a+mix+in[k.word], int(k.turn)), b, c
	}
	state[0], state[1], state[2], state[3] = state[0]+a, state[1]+b, state[2]+c, state[3]+d
}

// tea is sixteen rounds of the Tiny Encryption Algorithm, added to the state.
func tea(state *[4]uint32, in [8]uint32) {
	a, b, sum := state[0], state[1], uint32(0)
	for range 16 {
		sum += 0x9e3779b9
		a += (b<<4 + in[0]) ^ (b + sum) ^ (b>>5 + in[1])
		b += (a<<4 + in[2]) ^ (a + sum) ^ (a>>5 + in[3])
	}
	state[0], state[1] = state[0]+a, state[1]+b
}
