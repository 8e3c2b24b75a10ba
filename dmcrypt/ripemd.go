package dmcrypt

import "math/bits"

// RIPEMD-160 (Dobbertin, Bosselaers and Preneel, 1996), for essiv:rmd160. The library
// of golang.org/x has it, and leaves its state where it cannot be wiped.

var ripemdStart = [5]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}

// ripemdOrder is the order of the words of a block in the rounds of the left line and
// of the right one, ripemdTurns how far the sums turn with each word.
var ripemdOrder, ripemdTurns = ripemdTables()

// ripemdTables: a round takes the words in the order of the one before, permuted; the
// right line begins with 9i+5.
func ripemdTables() (order, turns [2][80]uint8) {
	permute := [16]uint8{7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8}
	byWord := [5][16]uint8{ // of the five rounds
		{11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8},
		{12, 13, 11, 15, 6, 9, 9, 7, 12, 15, 11, 13, 7, 8, 7, 7},
		{13, 15, 14, 11, 7, 7, 6, 8, 13, 14, 13, 12, 5, 5, 6, 9},
		{14, 11, 12, 14, 8, 6, 5, 5, 15, 12, 15, 14, 9, 9, 8, 6},
		{15, 12, 13, 13, 9, 5, 8, 6, 14, 11, 12, 11, 8, 6, 5, 5},
	}
	for line := range order {
		for i := range 80 {
			switch {
			case i >= 16:
				order[line][i] = permute[order[line][i-16]]
			case line == 0:
				order[line][i] = uint8(i)
			default:
				order[line][i] = uint8(9*i+5) % 16
			}
			turns[line][i] = byWord[i/16][order[line][i]]
		}
	}
	return order, turns
}

var ripemdAdds = [2][5]uint32{
	{0, 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xa953fd4e},
	{0x50a28be6, 0x5c4dd124, 0x6d703ef3, 0x7a6d76e9, 0},
}

func ripemdMix(n int, x, y, z uint32) uint32 {
	switch n {
	case 0:
		return x ^ y ^ z
	case 1:
		return x&y | ^x&z
	case 2:
		return (x | ^y) ^ z
	case 3:
		return x&z | y&^z
	}
	return x ^ (y | ^z)
}

// ripemdBlock takes the first 64 bytes of p into the state.
func ripemdBlock(h *[5]uint32, p []byte) {
	var lines [2][5]uint32
	for line := range lines {
		a, b, c, d, e := h[0], h[1], h[2], h[3], h[4]
		for i := range 80 {
			n := i / 16
			f := n
			if line == 1 {
				f = 4 - n
			}
			t := a + ripemdMix(f, b, c, d) + word(p, int(ripemdOrder[line][i])) + ripemdAdds[line][n]
			t = bits.RotateLeft32(t, int(ripemdTurns[line][i])) + e
			a, e, d, c, b = e, d, bits.RotateLeft32(c, 10), b, t
		}
		lines[line] = [5]uint32{a, b, c, d, e}
	}
	l, r := &lines[0], &lines[1]
	h[0], h[1], h[2], h[3], h[4] = h[1]+l[2]+r[3], h[2]+l[3]+r[4], h[3]+l[4]+r[0], h[4]+l[0]+r[1], h[0]+l[1]+r[2]
	wipe(&lines)
}
