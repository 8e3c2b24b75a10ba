//go:build amd64 && !purego

package sm4xts

import (
	"math/bits"
	"testing"
)

// The S-box of AES by its definition (FIPS 197, section 5.1.1).
func aesBox(x byte) byte {
	product := func(a, b byte) (p byte) {
		for ; b > 0; b >>= 1 {
			p ^= a * (b & 1)
			a = a<<1 ^ a>>7*0x1b
		}
		return p
	}
	var inverse byte
	for y := range 256 {
		if product(x, byte(y)) == 1 {
			inverse = byte(y)
		}
	}
	return inverse ^ bits.RotateLeft8(inverse, 1) ^ bits.RotateLeft8(inverse, 2) ^
		bits.RotateLeft8(inverse, 3) ^ bits.RotateLeft8(inverse, 4) ^ 0x63
}

// The round keys are folded with these constants, the tables in the assembly are
// made of their like.
func TestSBoxIsThatOfAESBetweenLinearMaps(t *testing.T) {
	for x := range 256 {
		behind := uint64(naiveBox[x] ^ sboxOutAES)
		if got, want := behindAESInverse.words(behind), uint64(aesBox(byte(front.words(uint64(x)^sboxIn)))); got != want {
			t.Errorf("S(%#02x): %#02x behind the AES S-box, want %#02x", x, got, want)
		}
	}
}

func TestMatricesMapEachByteOfTwoWords(t *testing.T) {
	const x = 0x01fe8057c33a9b04
	var want uint64
	for i := 0; i < 64; i += 8 {
		want |= front.words(x>>i&0xff) << i
	}
	if got := front.words(x); got != want {
		t.Errorf("%016x, want %016x", got, want)
	}
}

// GB/T 32907-2016, section 6.2.2.
func TestUnspreadIsTheInverseOfL(t *testing.T) {
	for i := range 32 {
		x := uint32(0x80000001) << i
		l := x ^ bits.RotateLeft32(x, 2) ^ bits.RotateLeft32(x, 10) ^ bits.RotateLeft32(x, 18) ^ bits.RotateLeft32(x, 24)
		if got := bits.ReverseBytes32(unspread(bits.ReverseBytes32(l))); got != x {
			t.Errorf("%08x, want %08x", got, x)
		}
	}
}
