package sm4xts

import (
	"bytes"
	"encoding/hex"
	"math/bits"
	"math/rand/v2"
	"testing"

	"keyway/internal/race"
)

// All 256 values through the circuit, against the table of the standard.
func TestCircuitIsTheSBox(t *testing.T) {
	for x := range uint64(256) {
		want := uint64(naiveBox[x]) * repeat
		if got := substitute(x * repeat); got != want {
			t.Errorf("S(%#02x) = %#016x, want %#016x", x, got, want)
		}
	}
	// Eight different bytes: none disturbs its neighbour.
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		x, want := r.Uint64(), uint64(0)
		for i := range 8 {
			want |= uint64(naiveBox[x>>(8*i)&0xff]) << (8 * i)
		}
		if got := substitute(x); got != want {
			t.Fatalf("S(%#016x) = %#016x, want %#016x", x, got, want)
		}
	}
}

func TestScheduleIsThatOfTheStandard(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		key := make([]byte, 32)
		for i := range key {
			key[i] = byte(r.Uint32())
		}
		var data, tweak schedule
		expand(&data, &tweak, key)
		wantData, wantTweak := newNaiveSM4(key[:16]), newNaiveSM4(key[16:])
		for i := range data {
			if bits.ReverseBytes32(data[i]) != wantData[i] || bits.ReverseBytes32(tweak[i]) != wantTweak[i] {
				t.Fatalf("round key %d of %x: %08x and %08x, want %08x and %08x", i, key,
					bits.ReverseBytes32(data[i]), bits.ReverseBytes32(tweak[i]), wantData[i], wantTweak[i])
			}
		}
	}
}

// draft-ribose-cfrg-sm4-10, appendix A.1 (examples 1 and 2 of GB/T 32907-2016):
// the first and last round keys of the example key.
func TestExpandKnownAnswer(t *testing.T) {
	key, err := hex.DecodeString("0123456789abcdeffedcba98765432100123456789abcdeffedcba9876543210")
	if err != nil {
		t.Fatal(err)
	}
	var data, tweak schedule
	expand(&data, &tweak, key)
	if data != tweak {
		t.Error("equal keys have different schedules")
	}
	for i, want := range map[int]uint32{0: 0xf12186f9, 1: 0x41662b61, 2: 0x5a6ab19a, 3: 0x7ba92077, 30: 0x01cf72e5, 31: 0x9124a012} {
		if got := bits.ReverseBytes32(data[i]); got != want {
			t.Errorf("round key %d: %08x, want %08x", i, got, want)
		}
	}
}

// draft-ribose-cfrg-sm4-10, appendix A.1.4 and A.1.5: one encryption, and a
// million in a row (in about two seconds).
func TestBlockKnownAnswers(t *testing.T) {
	plain, _ := hex.DecodeString("0123456789abcdeffedcba9876543210")
	var data, tweak schedule
	expand(&data, &tweak, append(bytes.Clone(plain), plain...))
	var k slicedKeys
	k.slice(&data)
	var s state
	buf := [slicedSize]byte(bytes.Repeat(plain, lanes))
	want, _ := hex.DecodeString("681edf34d206965e86b3e94f536e4246")
	s.slice(&buf)
	s.encrypt(&k)
	s.unslice(&buf)
	if !bytes.Equal(buf[:], bytes.Repeat(want, lanes)) {
		t.Fatalf("ciphertext %x, want %x in each lane", buf, want)
	}
	if testing.Short() || race.Enabled { // a race detector finds nothing here, and takes a minute
		return
	}
	want, _ = hex.DecodeString("595298c7c6fd271f0402f804c33d3f66")
	s.slice(&buf)
	for range 1_000_000 - 1 {
		s.encrypt(&k)
	}
	s.unslice(&buf)
	if !bytes.Equal(buf[:], bytes.Repeat(want, lanes)) {
		t.Errorf("a million times: %x, want %x in each lane", buf, want)
	}
}
