package hctr2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/internal/race"
	"keyway/test/naive"
)

var subject = dataunittest.Subject{
	Package: "hctr2",
	Names:   Implementations(),
	New: func(name string, key []byte, unit int) (dataunittest.Cipher, error) {
		c, err := NewWith(name, key, unit)
		if err != nil {
			return nil, err
		}
		return c, nil
	},
	Keys:  []int{16, 24, 32},
	Units: []int{512, 4096, 16, 32, 48, 64, 80, 128, 144, 240, 272, 288, 496, 528, 544, 1040, 1536, 2048},
	Limbs: 4,
	Reference: func(dst, src, key []byte, unit int, dun [4]uint64, decrypt bool) {
		for i := 0; i < len(src); i += unit {
			naive.HCTR2(key, dst[i:i+unit], src[i:i+unit], tweak(dun), decrypt)
			dun = dataunittest.Add(dun, 1, 4)
		}
	},
	Slow: []string{"generic"},
}

// tweak is the number of a data unit as Linux has it.
func tweak(dun [4]uint64) []byte {
	var b []byte
	for _, limb := range dun {
		b = binary.LittleEndian.AppendUint64(b, limb)
	}
	return b
}

func TestContract(t *testing.T)             { dataunittest.Contract(t, subject) }
func FuzzEqualsNaiveReference(f *testing.F) { dataunittest.Fuzz(f, subject) }
func BenchmarkNewWipe(b *testing.B)         { dataunittest.BenchmarkNewWipe(b, subject) }
func BenchmarkCipher(b *testing.B)          { dataunittest.Benchmark(b, subject) }

func mustOpen(t testing.TB, name string, key []byte, unit int) *Cipher {
	t.Helper()
	c, err := NewWith(name, key, unit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c
}

// bothWays holds EncryptBytes and DecryptBytes against ciphertext, in place and not.
func bothWays(t *testing.T, about string, c *Cipher, plain, cipher []byte, tweak *[TweakSize]byte) {
	t.Helper()
	guard := bytes.Repeat([]byte{0x5a}, 40)
	for _, way := range []struct {
		name     string
		op       func(dst, src []byte, tweak *[TweakSize]byte)
		src, dst []byte
	}{{"encrypt", c.EncryptBytes, plain, cipher}, {"decrypt", c.DecryptBytes, cipher, plain}} {
		src, got := bytes.Clone(way.src), append(make([]byte, len(plain)), guard...)
		way.op(got, src, tweak)
		dataunittest.Diff(t, about+": "+way.name, got, way.dst)
		dataunittest.Diff(t, about+": behind the output", got[len(plain):], guard)
		dataunittest.Diff(t, about+": source", src, way.src)
		way.op(src, src, tweak)
		dataunittest.Diff(t, about+": "+way.name+" in place", src, way.dst)
	}
}

// Texts of every length around blocks and groups of them, and long odd ones.
func TestEveryLength(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	lengths := []int{1000, 4095, 4097, 16367, 65519, 65552, 65553, 66000, 66001, 131073}
	for n := MinLen; n <= 560; n++ {
		lengths = append(lengths, n)
	}
	if testing.Short() || race.Enabled {
		lengths = append(lengths[6:8], lengths[10:300]...)
	}
	key := dataunittest.Random(r, 32)
	for _, n := range lengths {
		plain, want := dataunittest.Random(r, n), make([]byte, n)
		var tweak [TweakSize]byte
		copy(tweak[:], dataunittest.Random(r, TweakSize))
		key := key[:16+8*r.IntN(3)]
		naive.HCTR2(key, want, plain, tweak[:], false)
		for _, name := range Implementations() {
			c := mustOpen(t, name, key, 512)
			bothWays(t, fmt.Sprintf("%s, %d bytes", name, n), c, plain, want, &tweak)
			c.Wipe()
		}
	}
}

// FuzzText: any text, tweak and key, by every implementation, beside the reference.
func FuzzText(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), make([]byte, TweakSize), []byte("YELLOW SUBMARINE"))
	f.Add(bytes.Repeat([]byte("one text of any length "), 13), bytes.Repeat([]byte{0xff}, TweakSize), bytes.Repeat([]byte{0xff}, 32))
	f.Fuzz(func(t *testing.T, plain, tweak, key []byte) {
		if len(plain) < MinLen || len(plain) > 4<<10 || len(tweak) != TweakSize || len(key) < 16 {
			return
		}
		key = key[:min(len(key)/8*8, 32)]
		want := make([]byte, len(plain))
		naive.HCTR2(key, want, plain, tweak, false)
		for _, name := range Implementations() {
			c := mustOpen(t, name, key, 16)
			bothWays(t, name, c, plain, want, (*[TweakSize]byte)(tweak))
			c.Wipe()
		}
	})
}

// Equal or all-zero and all-one input is where a hash or a carry goes wrong first.
func TestMonotonousInput(t *testing.T) {
	for _, key := range []byte{0, 0xff} {
		for _, text := range []byte{0, 0xff, 0x80, 1} {
			for _, n := range []int{16, 17, 31, 32, 272, 273, 528, 4096, 4111} {
				key, plain, want := bytes.Repeat([]byte{key}, 32), bytes.Repeat([]byte{text}, n), make([]byte, n)
				tweak := [TweakSize]byte(bytes.Repeat([]byte{text ^ 0xff}, TweakSize))
				naive.HCTR2(key, want, plain, tweak[:], false)
				for _, name := range Implementations() {
					c := mustOpen(t, name, key, 16)
					bothWays(t, fmt.Sprintf("%s, key %x, text %x, %d bytes", name, key[0], text, n), c, plain, want, &tweak)
					c.Wipe()
				}
			}
		}
	}
}

func TestMisuseOfBytesPanics(t *testing.T) {
	c, err := New(make([]byte, 16), 16)
	if err != nil {
		t.Fatal(err)
	}
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		f()
	}
	b, long := make([]byte, 64), make([]byte, MaxUnit+1)
	tweak := new([TweakSize]byte)
	panics("15 bytes", func() { c.EncryptBytes(b, b[:15], tweak) })
	panics("a text that is too long", func() { c.EncryptBytes(long, long, tweak) })
	panics("a short output", func() { c.DecryptBytes(b[:16], b[:17], tweak) })
	panics("overlap", func() { c.EncryptBytes(b[1:], b[:32], tweak) })
	c.EncryptBytes(long, long[:MaxUnit], tweak)
	c.Wipe()
	panics("use after Wipe", func() { c.EncryptBytes(b, b, tweak) })
}

func TestNoAllocationOfBytes(t *testing.T) {
	for _, name := range Implementations() {
		c, b, tweak := mustOpen(t, name, make([]byte, 32), 16), make([]byte, 255), new([TweakSize]byte)
		if n := testing.AllocsPerRun(20, func() { c.EncryptBytes(b, b, tweak); c.DecryptBytes(b, b, tweak) }); n != 0 && !race.Enabled {
			t.Errorf("%s: %v allocations in a call", name, n)
		}
	}
}
