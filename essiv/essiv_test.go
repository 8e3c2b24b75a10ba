package essiv

import (
	"fmt"
	"math"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/test/naive"
)

var subject = dataunittest.Subject{
	Package: "essiv",
	Names:   Implementations(),
	New: func(name string, key []byte, unit int) (dataunittest.Cipher, error) {
		c, err := NewWith(name, key, unit)
		if err != nil {
			return nil, err
		}
		return dataunittest.Narrow(c), nil
	},
	Keys:  []int{16, 24, 32},
	Units: []int{512, 4096, 16, 32, 48, 128, 240, 256, 272, 528, 1024, 2048, 65536},
	Limbs: 2,
	Reference: func(dst, src, key []byte, unit int, dun [4]uint64, decrypt bool) {
		naiveESSIV(dst, src, key, unit, [2]uint64{dun[0], dun[1]}, decrypt)
	},
	Slow: []string{"generic"},
}

func TestContract(t *testing.T)             { dataunittest.Contract(t, subject) }
func FuzzEqualsNaiveReference(f *testing.F) { dataunittest.Fuzz(f, subject) }
func BenchmarkNewWipe(b *testing.B)         { dataunittest.BenchmarkNewWipe(b, subject) }
func BenchmarkCipher(b *testing.B)          { dataunittest.Benchmark(b, subject) }

// naiveESSIV is the reference, which shares no code with the product.
var naiveESSIV = naive.ESSIV

// each runs f once for every implementation this CPU supports.
func each(t *testing.T, f func(t *testing.T, name string)) {
	for _, name := range Implementations() {
		t.Run(name, func(t *testing.T) { f(t, name) })
	}
}

func mustOpen(t testing.TB, name string, key []byte, unit int) *Cipher {
	t.Helper()
	c, err := NewWith(name, key, unit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c
}

// Data units that are longer than one call of assembly may last go through several,
// each with the last ciphertext of the one before.
func TestLongDataUnitsContinueAcrossCalls(t *testing.T) {
	key := make([]byte, 32)
	for _, unit := range []int{16<<10 + 16, 128<<10 + 16, 256<<10 + 80} {
		src, want := make([]byte, 3*unit), make([]byte, 3*unit)
		for i := range src {
			src[i] = byte(i * i >> 3)
		}
		dun := [2]uint64{math.MaxUint64}
		naiveESSIV(want, src, key, unit, dun, false)
		each(t, func(t *testing.T, name string) {
			c, got := mustOpen(t, name, key, unit), make([]byte, len(src))
			c.Encrypt(got, src, dun)
			dataunittest.Diff(t, fmt.Sprintf("unit of %d bytes", unit), got, want)
			c.Decrypt(got, got, dun)
			dataunittest.Diff(t, fmt.Sprintf("unit of %d bytes, decrypted in place", unit), got, src)
		})
	}
}
