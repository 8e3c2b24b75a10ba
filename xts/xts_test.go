package xts

import (
	"crypto/aes"
	"encoding/binary"
	"errors"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

var subject = dataunittest.Subject{
	Package: "xts",
	Names:   Implementations(),
	New: func(name string, key []byte, unit int) (dataunittest.Cipher, error) {
		c, err := NewWith(name, key, unit)
		if err != nil {
			return nil, err
		}
		return dataunittest.Narrow(c), nil
	},
	Keys:  []int{32, 48, 64},
	Units: []int{512, 4096, 16, 32, 48, 128, 240, 256, 384, 768, 1024, 2048, 65536},
	Limbs: 2,
	Reference: func(dst, src, key []byte, unit int, dun [4]uint64, decrypt bool) {
		naiveXTS(dst, src, key, unit, [2]uint64{dun[0], dun[1]}, decrypt)
	},
	Slow: []string{"generic"},
}

func TestContract(t *testing.T)             { dataunittest.Contract(t, subject) }
func FuzzEqualsNaiveReference(f *testing.F) { dataunittest.Fuzz(f, subject) }
func BenchmarkNewWipe(b *testing.B)         { dataunittest.BenchmarkNewWipe(b, subject) }
func BenchmarkCipher(b *testing.B)          { dataunittest.Benchmark(b, subject) }

func TestGenerateChangesNothing(t *testing.T) {
	dataunittest.Generated(t, "xts", "xts_amd64.s", "stubs_amd64.go")
}

func TestAssemblyClearsVectorRegistersBeforeReturning(t *testing.T) {
	dataunittest.Clears(t, "xts_amd64.s", 6)
}

// naiveXTS is the reference: IEEE 1619-2007, 5.3 and 5.4, block by block over
// crypto/aes. It is here to be obviously right: nobody may optimise it.
func naiveXTS(dst, src, key []byte, unit int, tweak [2]uint64, decrypt bool) {
	data, err1 := aes.NewCipher(key[:len(key)/2])
	tw, err2 := aes.NewCipher(key[len(key)/2:])
	if err1 != nil || err2 != nil {
		panic("naive: bad key")
	}
	for len(src) > 0 {
		var t [16]byte
		binary.LittleEndian.PutUint64(t[:8], tweak[0])
		binary.LittleEndian.PutUint64(t[8:], tweak[1])
		tw.Encrypt(t[:], t[:])
		for i := 0; i < unit; i += 16 {
			var b [16]byte
			for j := range b {
				b[j] = src[i+j] ^ t[j]
			}
			if decrypt {
				data.Decrypt(b[:], b[:])
			} else {
				data.Encrypt(b[:], b[:])
			}
			for j := range b {
				dst[i+j] = b[j] ^ t[j]
			}
			var carry byte
			for j := range t {
				carry, t[j] = t[j]>>7, t[j]<<1|carry
			}
			if carry != 0 {
				t[0] ^= 0x87
			}
		}
		dst, src = dst[unit:], src[unit:]
		tweak[0]++
		if tweak[0] == 0 {
			tweak[1]++
		}
	}
}

// each runs f once for every implementation this CPU supports.
func each(t *testing.T, f func(t *testing.T, name string)) {
	for _, name := range Implementations() {
		t.Run(name, func(t *testing.T) { f(t, name) })
	}
}

// mustOpen takes weak keys too: some vectors have one.
func mustOpen(t testing.TB, name string, key []byte, unit int) *Cipher {
	t.Helper()
	im, err := choice.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := open(im.Open, key, unit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c
}

func TestWeakKeyIsEqualHalves(t *testing.T) {
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i % 32)
	}
	if !WeakKey(key) {
		t.Error("equal halves not found")
	}
	for _, i := range []int{0, 31, 32, 63} {
		key[i] ^= 0x80
		if WeakKey(key) {
			t.Errorf("halves that differ in byte %d called weak", i)
		}
		key[i] ^= 0x80
	}
}

func TestEqualHalvesAreRefusedUnlessAskedFor(t *testing.T) {
	key := make([]byte, 64)
	if _, err := New(key, 512); !errors.Is(err, ErrWeakKey) {
		t.Errorf("New: %v, want ErrWeakKey", err)
	}
	if _, err := NewWith("generic", key, 512); !errors.Is(err, ErrWeakKey) {
		t.Errorf("NewWith: %v, want ErrWeakKey", err)
	}
	c, err := NewAllowWeak(key, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	got, want := make([]byte, 512), make([]byte, 512)
	naiveXTS(want, want, key, 512, [2]uint64{5}, false)
	c.Encrypt(got, got, [2]uint64{5})
	dataunittest.Diff(t, "weak key", got, want)
}
