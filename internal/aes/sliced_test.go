package aes

import (
	"bytes"
	stdaes "crypto/aes"
	"math/bits"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// sbox computes the S-box as FIPS 197, section 5.1.1, defines it: the inverse in
// GF(2^8), and an affine map.
func sbox(x byte) byte {
	mul := func(a, b byte) (p byte) {
		for ; b != 0; b >>= 1 {
			if b&1 != 0 {
				p ^= a
			}
			a = a<<1 ^ a>>7*0x1b
		}
		return p
	}
	inverse := byte(1)
	for range 254 {
		inverse = mul(inverse, x)
	}
	s := byte(0x63)
	for i := range 5 {
		s ^= bits.RotateLeft8(inverse, i)
	}
	return s
}

func TestSBoxAndItsInverse(t *testing.T) {
	planes := func(x byte) (p [8]uint64) {
		for b := range p {
			p[b] = uint64(x >> b & 1)
		}
		return p
	}
	value := func(b0, b1, b2, b3, b4, b5, b6, b7 uint64) (x byte) {
		for i, b := range []uint64{b0, b1, b2, b3, b4, b5, b6, b7} {
			x |= byte(b&1) << i
		}
		return x
	}
	for i := range 256 {
		x := byte(i)
		p := planes(x)
		if got := value(sub(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7])) ^ affine; got != sbox(x) {
			t.Errorf("S-box of %#x: %#x, want %#x", x, got, sbox(x))
		}
		p = planes(sbox(x) ^ affine)
		if got := value(invSub(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7])); got != x {
			t.Errorf("inverse S-box of %#x: %#x, want %#x", sbox(x), got, x)
		}
		word := uint32(x) | uint32(x^0xff)<<8 | uint32(x^0x55)<<16 | uint32(x^0xaa)<<24
		want := uint32(sbox(x)) | uint32(sbox(x^0xff))<<8 | uint32(sbox(x^0x55))<<16 | uint32(sbox(x^0xaa))<<24
		if got := subWord(word); got != want {
			t.Errorf("SubWord of %#08x: %#08x, want %#08x", word, got, want)
		}
	}
}

func TestSliceAndUnsliceAreInverse(t *testing.T) {
	src := dataunittest.Random(seeded(t), WideSize)
	var wide, got [WideSize]byte
	copy(wide[:], src)
	var q Wide
	q.Slice(&wide)
	// Where a byte's bits are: row 2, column 1, block 13.
	for b := range 8 {
		if have, want := q[2][b]>>(16*1+13)&1, uint64(src[BlockSize*13+4*1+2]>>b&1); have != want {
			t.Errorf("bit %d of a byte is %d, want %d", b, have, want)
		}
	}
	q.Unslice(&got)
	dataunittest.Diff(t, "sixteen blocks", got[:], src)

	var four, back [StateSize]byte
	copy(four[:], src)
	var s State
	s.Slice(&four)
	s.Unslice(&back)
	dataunittest.Diff(t, "four blocks", back[:], src[:StateSize])
}

// The standard library is the second opinion; Blocks' tests ask it for State.
func TestWideEqualsTheStandardLibrary(t *testing.T) {
	r := seeded(t)
	for _, size := range []int{16, 24, 32} {
		for range 20 {
			key := dataunittest.Random(r, size)
			ref, err := stdaes.NewCipher(key)
			if err != nil {
				t.Fatal(err)
			}
			w, rk := make([]byte, ScheduleSize(size)), make([]Wide, Rounds(size)+1)
			expandGeneric(w, key)
			SliceWideKeys(rk, w)
			var plain, got, want [WideSize]byte
			copy(plain[:], dataunittest.Random(r, WideSize))
			for i := 0; i < WideSize; i += BlockSize {
				ref.Encrypt(want[i:], plain[i:])
			}
			var q Wide
			q.Slice(&plain)
			q.Encrypt(rk)
			q.Unslice(&got)
			dataunittest.Diff(t, "encrypted", got[:], want[:])
			q.Slice(&want)
			q.Decrypt(rk)
			q.Unslice(&got)
			dataunittest.Diff(t, "decrypted", got[:], plain[:])
			if q.Wipe(); q != (Wide{}) {
				t.Error("Wipe left something")
			}
		}
	}
}

// Key schedules are wiped from the stack by their owners; what is left of a state
// is cleared by Wipe.
func TestWipeClearsState(t *testing.T) {
	q := State{1, 2, 3, 4, 5, 6, 7, 8}
	if q.Wipe(); q != (State{}) {
		t.Error("Wipe left something")
	}
}

func BenchmarkSliced(b *testing.B) {
	w := make([]byte, ScheduleSize(32))
	expandGeneric(w, bytes.Repeat([]byte{7}, 32))
	small, wide := make([]State, 15), make([]Wide, 15)
	SliceKeys(small, w)
	SliceWideKeys(wide, w)
	var buf4 [StateSize]byte
	var buf16 [WideSize]byte
	for _, verb := range []string{"encrypt", "decrypt"} {
		b.Run("State/"+verb, func(b *testing.B) {
			b.SetBytes(StateSize)
			var q State
			for b.Loop() {
				q.Slice(&buf4)
				if verb == "encrypt" {
					q.Encrypt(small)
				} else {
					q.Decrypt(small)
				}
				q.Unslice(&buf4)
			}
		})
		b.Run("Wide/"+verb, func(b *testing.B) {
			b.SetBytes(WideSize)
			var q Wide
			for b.Loop() {
				q.Slice(&buf16)
				if verb == "encrypt" {
					q.Encrypt(wide)
				} else {
					q.Decrypt(wide)
				}
				q.Unslice(&buf16)
			}
		})
	}
}
