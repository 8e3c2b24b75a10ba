package roofline

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// sub is the S-box of FIPS 197, section 5.1.1: the inverse in GF(2^8), then the
// affine map.
func sub(x byte) byte {
	mul := func(a, b byte) (p byte) {
		for ; b > 0; b >>= 1 {
			if b&1 != 0 {
				p ^= a
			}
			a = a<<1 ^ a>>7*0x1b
		}
		return p
	}
	inv := byte(1)
	for range 254 {
		inv = mul(inv, x)
	}
	return inv ^ bits.RotateLeft8(inv, 1) ^ bits.RotateLeft8(inv, 2) ^ bits.RotateLeft8(inv, 3) ^ bits.RotateLeft8(inv, 4) ^ 0x63
}

// round is one AES round with a round key of zero (FIPS 197, section 5.1).
func round(box *[256]byte, s []byte) {
	var t [16]byte
	for c := range 4 {
		for r := range 4 {
			t[4*c+r] = box[s[4*((c+r)%4)+r]]
		}
	}
	double := func(x byte) byte { return x<<1 ^ x>>7*0x1b }
	for c := range 4 {
		for r := range 4 {
			a, b := t[4*c+r], t[4*c+(r+1)%4]
			s[4*c+r] = double(a) ^ double(b) ^ b ^ t[4*c+(r+2)%4] ^ t[4*c+(r+3)%4]
		}
	}
}

// What is counted is what is done: every block of the state has gone through the
// rounds that Run reports.
func TestRoundsAreDone(t *testing.T) {
	if len(Widths()) == 0 {
		t.Skip("no AES instructions here")
	}
	var box [256]byte
	for i := range box {
		box[i] = sub(byte(i))
	}
	for _, w := range Widths() {
		t.Run(fmt.Sprint(w.Bits), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for i := range w.state {
				w.state[i] = byte(r.Uint32())
			}
			want := bytes.Clone(w.state)
			if n := w.stateSize(); n != len(want) {
				t.Fatalf("state of %d bytes, want %d", len(want), n)
			}
			done := w.Run()
			blocks := len(want) / blockSize
			for b := range blocks {
				for range done / blocks {
					round(&box, want[b*blockSize:][:blockSize])
				}
			}
			if done != blocks*unroll*turns || !bytes.Equal(w.state, want) {
				t.Errorf("after %d rounds: %x, want %x", done, w.state, want)
			}
		})
	}
}

func TestBytesPerSecondOfAES256(t *testing.T) {
	if have := BytesPerSecond(14e9, 14); have != 16e9 {
		t.Errorf("14e9 rounds a second at 14 for a block: %g bytes, want 16e9", have)
	}
}

func TestGeneratedFilesAreCurrent(t *testing.T) {
	dataunittest.Generated(t, "roofline", "roofline_amd64.s", "stubs_amd64.go")
}

func BenchmarkRounds(b *testing.B) {
	runtime.LockOSThread()
	for _, w := range Widths() {
		b.Run(fmt.Sprint(w.Bits), func(b *testing.B) {
			n := 0
			for b.Loop() {
				n += w.Run()
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e9, "Grounds/s")
			b.ReportMetric(BytesPerSecond(float64(n)/b.Elapsed().Seconds(), 14)/1e9, "AES-256-GB/s")
		})
	}
}
