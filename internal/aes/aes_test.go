package aes

import (
	"bytes"
	stdaes "crypto/aes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// each runs f for the portable twin and for the instructions, if there are any.
func each(t *testing.T, f func(t *testing.T, hardware bool)) {
	t.Run("portable", func(t *testing.T) { f(t, false) })
	if hardware {
		t.Run("instructions", func(t *testing.T) { f(t, true) })
	}
}

func mustBlocks(t testing.TB, key []byte, hardware bool) *Blocks {
	t.Helper()
	b, err := newBlocks(key, hardware)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Wipe)
	return b
}

func expandWith(hardware bool, w, key []byte) {
	if hardware {
		expandKey(&w[0], &key[0], Rounds(len(key)))
	} else {
		expandGeneric(w, key)
	}
}

func invertWith(hardware bool, dec, enc []byte) {
	if hardware {
		invertKey(&dec[0], &enc[0], len(enc)/BlockSize-1)
	} else {
		invertGeneric(dec, enc)
	}
}

// FIPS 197, appendix A: the keys and the last round key of each expansion.
func TestExpandEqualsFIPS197(t *testing.T) {
	for _, v := range []struct{ key, last string }{
		{"2b7e151628aed2a6abf7158809cf4f3c", "d014f9a8c9ee2589e13f0cc8b6630ca6"},
		{"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "e98ba06f448c773c8ecc720401002202"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "fe4890d1e6188d0b046df344706c631e"},
	} {
		key := unhex(t, v.key)
		each(t, func(t *testing.T, hw bool) {
			const guard = 0x5a
			w := bytes.Repeat([]byte{guard}, ScheduleSize(len(key))+1)
			expandWith(hw, w, key)
			end := len(w) - 1
			if got := hex.EncodeToString(w[end-BlockSize : end]); got != v.last {
				t.Errorf("AES-%d: last round key %s, want %s", len(key)*8, got, v.last)
			}
			if w[end] != guard {
				t.Error("wrote behind the schedule")
			}
		})
	}
}

// FIPS 197, appendix C.
func TestBlocksEqualFIPS197(t *testing.T) {
	plain := unhex(t, "00112233445566778899aabbccddeeff")
	for _, v := range []struct {
		size int
		want string
	}{
		{16, "69c4e0d86a7b0430d8cdb78070b4c55a"},
		{24, "dda97ca4864cdfe06eaf70a0ec0d7191"},
		{32, "8ea2b7ca516745bfeafc49904b496089"},
	} {
		key := make([]byte, v.size)
		for i := range key {
			key[i] = byte(i)
		}
		each(t, func(t *testing.T, hw bool) {
			b, got := mustBlocks(t, key, hw), make([]byte, BlockSize)
			b.Encrypt(got, plain)
			if hex.EncodeToString(got) != v.want {
				t.Errorf("AES-%d: %x, want %s", v.size*8, got, v.want)
			}
			b.Decrypt(got, got)
			if !bytes.Equal(got, plain) {
				t.Errorf("AES-%d: decrypted %x, want %x", v.size*8, got, plain)
			}
		})
	}
}

// The portable twin, whose blocks are held against the standard library below,
// is the reference for schedules.
func TestSchedulesAreTheSameWithInstructions(t *testing.T) {
	if !hardware {
		t.Skip("no AES instructions")
	}
	r := seeded(t)
	for _, size := range []int{16, 24, 32} {
		for range 300 {
			key := dataunittest.Random(r, size)
			n := ScheduleSize(size)
			got, want := make([]byte, 2*n), make([]byte, 2*n)
			expandGeneric(want, key)
			invertGeneric(want[n:], want[:n])
			expandKey(&got[0], &key[0], Rounds(size))
			invertKey(&got[n], &got[0], Rounds(size))
			if !bytes.Equal(got, want) {
				t.Fatalf("key %x: schedules\n%x, want\n%x", key, got, want)
			}
		}
	}
}

// The public functions choose between the two; the other twin says whether right.
func TestExpandAndInvert(t *testing.T) {
	r := seeded(t)
	for _, size := range []int{16, 24, 32} {
		key, n := dataunittest.Random(r, size), ScheduleSize(size)
		got, want := make([]byte, 2*n), make([]byte, 2*n)
		Expand(got[:n], key)
		Invert(got[n:], got[:n])
		expandGeneric(want, key)
		invertGeneric(want[n:], want[:n])
		if !bytes.Equal(got, want) {
			t.Errorf("AES-%d: %x, want %x", size*8, got, want)
		}
	}
}

// The standard library is the second opinion. Block counts are those around a
// pass of each implementation, and around a call of the assembly.
func TestBlocksEqualTheStandardLibrary(t *testing.T) {
	r := seeded(t)
	counts := []int{maxBlocks - 1, maxBlocks, maxBlocks + 17}
	for n := range 70 {
		counts = append(counts, n)
	}
	for _, size := range []int{16, 24, 32} {
		key := dataunittest.Random(r, size)
		ref, err := stdaes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		each(t, func(t *testing.T, hw bool) {
			b := mustBlocks(t, key, hw)
			for _, n := range counts {
				src, want := dataunittest.Random(r, n*BlockSize), make([]byte, n*BlockSize)
				for i := 0; i < len(src); i += BlockSize {
					ref.Encrypt(want[i:], src[i:])
				}
				name, plain := fmt.Sprintf("AES-%d, %d blocks", size*8, n), bytes.Clone(src)
				got := make([]byte, len(src)+BlockSize)
				b.Encrypt(got, src)
				dataunittest.Diff(t, name, got[:len(src)], want)
				dataunittest.Diff(t, name+": behind the output", got[len(src):], make([]byte, BlockSize))
				dataunittest.Diff(t, name+": source", src, plain)
				b.Decrypt(got, want)
				dataunittest.Diff(t, name+": decrypted", got[:len(src)], plain)
				dataunittest.Diff(t, name+": behind the output", got[len(src):], make([]byte, BlockSize))
				b.Encrypt(src, src)
				dataunittest.Diff(t, name+": in place", src, want)
				b.Decrypt(src, src)
				dataunittest.Diff(t, name+": decrypted in place", src, plain)
			}
		})
	}
}

// Every function of the assembly, also one that a CPU with wider registers would
// not use, on memory that ends at inaccessible pages.
func TestBlocksTouchNothingOutsideTheirArguments(t *testing.T) {
	r := seeded(t)
	for _, size := range []int{16, 32} {
		key := dataunittest.Random(r, size)
		each(t, func(t *testing.T, hw bool) {
			b := mustBlocks(t, key, hw)
			for n := 1; n <= 35; n++ {
				plain := dataunittest.Random(r, n*BlockSize)
				for _, front := range []bool{false, true} {
					src, dst := dataunittest.Fenced(t, len(plain), front), dataunittest.Fenced(t, len(plain), front)
					copy(src, plain)
					b.Encrypt(dst, src)
					b.Decrypt(dst, dst)
					dataunittest.Diff(t, "there and back", dst, plain)
				}
			}
		})
	}
}

func TestBlocksRefuseOtherKeySizes(t *testing.T) {
	for _, n := range []int{0, 15, 17, 33, 64} {
		if _, err := NewBlocks(make([]byte, n)); err == nil {
			t.Errorf("key of %d bytes accepted", n)
		}
	}
}

func TestMisuseOfBlocksPanics(t *testing.T) {
	each(t, func(t *testing.T, hw bool) {
		b, buf := mustBlocks(t, make([]byte, 16), hw), make([]byte, 64)
		panics := func(what string, f func()) {
			t.Helper()
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", what)
				}
			}()
			f()
		}
		panics("part of a block", func() { b.Encrypt(buf, buf[:17]) })
		panics("short output", func() { b.Decrypt(buf[:16], buf[:32]) })
		b.Wipe()
		b.Wipe()
		panics("use after Wipe", func() { b.Encrypt(buf, buf) })
	})
}

func TestNoAllocationPerCall(t *testing.T) {
	each(t, func(t *testing.T, hw bool) {
		b, buf := mustBlocks(t, make([]byte, 32), hw), make([]byte, 5*BlockSize)
		if n := testing.AllocsPerRun(50, func() { b.Encrypt(buf, buf); b.Decrypt(buf, buf) }); n != 0 {
			t.Errorf("%v allocations per call, want 0", n)
		}
	})
}

func BenchmarkExpandInvert(b *testing.B) {
	for _, hw := range []bool{false, true} {
		if hw && !hardware {
			continue
		}
		for _, size := range []int{16, 32} {
			b.Run(fmt.Sprintf("AES-%d/instructions=%v", size*8, hw), func(b *testing.B) {
				key, n := make([]byte, size), ScheduleSize(size)
				w := make([]byte, 2*n)
				for b.Loop() {
					expandWith(hw, w[:n], key)
					invertWith(hw, w[n:], w[:n])
				}
			})
		}
	}
}

func BenchmarkBlocks(b *testing.B) {
	for _, hw := range []bool{false, true} {
		if hw && !hardware {
			continue
		}
		for _, n := range []int{1, 4, 8, 16, 64} {
			b.Run(fmt.Sprintf("%d/instructions=%v", n, hw), func(b *testing.B) {
				c, buf := mustBlocks(b, make([]byte, 32), hw), make([]byte, n*BlockSize)
				b.SetBytes(int64(len(buf)))
				for b.Loop() {
					c.Encrypt(buf, buf)
				}
			})
		}
	}
}
