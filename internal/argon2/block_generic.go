package argon2

import "math/bits"

// The mixing of two blocks (RFC 9106, section 3.5) in two halves, so that between
// them the caller learns the first word of the result. The blocks are square
// matrices of 8 by 8 pairs of words: a permutation is applied to the rows, then to
// the columns, and the exclusive or of the two blocks, and of an older one, is
// added.

// mixFirstGeneric brings into work the rows of prev xor ref and the first two
// columns, and returns the first word of the result. old may be nil.
func mixFirstGeneric(work, prev, ref, old *block) uint64 {
	for i := range work {
		work[i] = prev[i] ^ ref[i]
	}
	for i := 0; i < len(work); i += 16 {
		permute(work, i, 2)
	}
	permute(work, 0, 16)
	permute(work, 2, 16)
	word := work[0] ^ prev[0] ^ ref[0]
	if old != nil {
		word ^= old[0]
	}
	return word
}

// mixLastGeneric does the rest, into dst. old is dst or nil, and dst may be ref.
func mixLastGeneric(dst, work, prev, ref, old *block) {
	for i := 4; i < 16; i += 2 {
		permute(work, i, 16)
	}
	for i := range dst {
		word := work[i] ^ prev[i] ^ ref[i]
		if old != nil {
			word ^= old[i]
		}
		dst[i] = word
	}
}

// permute is the permutation P of eight pairs of words, the first at start, each
// step words behind the one before.
func permute(b *block, start, step int) {
	at := func(i int) *uint64 { return &b[(start+i/2*step+i%2)%len(b)] }
	for i := range 4 {
		quarter(at(i), at(4+i), at(8+i), at(12+i))
	}
	for i := range 4 {
		quarter(at(i), at(4+(i+1)%4), at(8+(i+2)%4), at(12+(i+3)%4))
	}
}

// quarter is the round function of BLAKE2b with multiplications. It keeps nothing
// but in the block: sixteen words in variables would be spilled onto the stack.
func quarter(pa, pb, pc, pd *uint64) {
	a, b, c, d := *pa, *pb, *pc, *pd
	a += b + 2*(a&0xffffffff)*(b&0xffffffff)
	d = bits.RotateLeft64(d^a, -32)
	c += d + 2*(c&0xffffffff)*(d&0xffffffff)
	b = bits.RotateLeft64(b^c, -24)
	a += b + 2*(a&0xffffffff)*(b&0xffffffff)
	d = bits.RotateLeft64(d^a, -16)
	c += d + 2*(c&0xffffffff)*(d&0xffffffff)
	b = bits.RotateLeft64(b^c, -63)
	*pa, *pb, *pc, *pd = a, b, c, d
}
