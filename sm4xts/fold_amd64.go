//go:build amd64 && !purego

package sm4xts

import (
	"encoding/binary"
	"math/bits"
)

// A matrix over GF(2) maps a byte: matrix[i] is the image of bit i.
type matrix [8]byte

// The S-box of SM4 is behind(inverse(front(x ^ sboxIn))) ^ sboxOut, the inverse
// that of the AES field, or behindAES(s) ^ sboxOutAES with s = the AES S-box of
// front(x ^ sboxIn). _asm/tables.go has front and behind too: the tables and
// matrices in the assembly are made of them.
var (
	front            = matrix{0xf6, 0x24, 0x33, 0xfe, 0x42, 0xd4, 0x7a, 0xf4}
	behindAESInverse = matrix{0x15, 0x03, 0xd3, 0x19, 0x1d, 0xb3, 0xeb, 0x40}
)

const sboxOutAES = 0xf5

// words maps each byte of x, two words; in constant time.
func (m *matrix) words(x uint64) (y uint64) {
	for i, c := range m {
		y ^= x >> i & repeat * uint64(c)
	}
	return y
}

// folding is how a machine takes its round keys.
type folding struct {
	machine machine
	stride  int // bytes for one of them: a word, as often as fits
}

func (m machine) stride() int {
	switch m {
	case gfni512:
		return 4
	case aesni:
		return 16
	}
	return 32
}

const foldedWords = rounds + 4

func (f folding) size() int { return (foldedWords*f.stride + 63) &^ 63 }

// fold writes to out the round keys of w, or of w backwards, as the assembly
// takes them: folded into constants that are added where an instruction has an
// operand to spare (_asm/rounds.go tells where).
//
// Let d be constants, one for each of the 36 words of a block in its rounds, and
// let the assembly keep word i as the word of the standard plus d[i]. It adds no
// round key; the sum of three words is right if
//
//	d[i+1] + d[i+2] + d[i+3] = key[i] + sboxIn
//
// where sboxIn, in every byte, is what the S-box adds to its input. d[0], d[1]
// and d[2] may be zero. What then is missing in word i+4 is d[i] + d[i+4], and
// what the constant behind the S-box becomes in the linear transformation: L
// leaves a word of equal bytes as those bytes rotated by 2 bits. d[35] may be
// zero, since no sum contains it.
//
// At the end come d[3], for a word on its way in, and d[32] to d[34] for words on
// their way out.
func (f folding) fold(out []byte, w *schedule, backwards bool) {
	var d [rounds + 4]uint32
	for i := range rounds {
		k := w[i]
		if backwards {
			k = w[rounds-1-i]
		}
		d[i+3] = d[i+1] ^ d[i+2] ^ k ^ sboxIn*0x01010101
	}
	for i := 0; i < rounds; i += 2 {
		x := f.missing(uint64(d[i]^d[i+4]) | uint64(d[i+1]^d[i+5])<<32)
		f.put(out, i, uint32(x))
		f.put(out, i+1, uint32(x>>32))
	}
	f.put(out, rounds, d[3])
	for i := range 3 {
		f.put(out, rounds+1+i, d[rounds+i])
	}
	wipe(&d)
}

// missing is the constant by which a round makes up for x, in every byte of
// which the output constant of the S-box is still lacking; for two rounds.
func (f folding) missing(x uint64) uint64 {
	if f.machine == gfni512 || f.machine == gfni256 {
		// Added to the words, which are behind front.
		return front.words(x ^ rotated(sboxOut)*repeat)
	}
	// Added behind AESENCLAST, before the rest of the S-box and L: hence their
	// inverses.
	x ^= rotated(sboxOutAES) * repeat
	return behindAESInverse.words(uint64(unspread(uint32(x))) | uint64(unspread(uint32(x>>32)))<<32)
}

func rotated(x byte) uint64 { return uint64(bits.RotateLeft8(x, 2)) }

// unspread is the inverse of L, whose square is 1 + R¹⁶ + R²⁰ with R the rotation
// by one bit, and whose fourth power is R⁸.
func unspread(x uint32) uint32 {
	x = bits.ReverseBytes32(x)
	x ^= bits.RotateLeft32(x, 2) ^ bits.RotateLeft32(x, 10) ^ bits.RotateLeft32(x, 18) ^ bits.RotateLeft32(x, 24)
	x ^= bits.RotateLeft32(x, 16) ^ bits.RotateLeft32(x, 20)
	return bits.ReverseBytes32(bits.RotateLeft32(x, -8))
}

func (f folding) put(out []byte, i int, x uint32) {
	out = out[i*f.stride:][:f.stride]
	if len(out) == 4 {
		binary.LittleEndian.PutUint32(out, x)
	}
	for twice := uint64(x) | uint64(x)<<32; len(out) >= 8; out = out[8:] {
		binary.LittleEndian.PutUint64(out, twice)
	}
}
