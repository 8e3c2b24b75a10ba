package sm4xts

import (
	"errors"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

var subject = dataunittest.Subject{
	Package: "sm4xts",
	Names:   Implementations(),
	New: func(name string, key []byte, unit int) (dataunittest.Cipher, error) {
		c, err := NewWith(name, key, unit)
		if err != nil {
			return nil, err
		}
		return dataunittest.Narrow(c), nil
	},
	Keys:      []int{32},
	Units:     []int{512, 4096, 16, 32, 48, 240, 256, 272, 768, 1024, 1536, 2048, 65536},
	Limbs:     2,
	Reference: naiveXTS,
	Slow:      []string{"generic"},
}

func TestContract(t *testing.T)             { dataunittest.Contract(t, subject) }
func FuzzEqualsNaiveReference(f *testing.F) { dataunittest.Fuzz(f, subject) }
func BenchmarkNewWipe(b *testing.B)         { dataunittest.BenchmarkNewWipe(b, subject) }
func BenchmarkCipher(b *testing.B)          { dataunittest.Benchmark(b, subject) }

func TestGenerateChangesNothing(t *testing.T) {
	dataunittest.Generated(t, "sm4xts", "sm4xts_amd64.s", "stubs_amd64.go")
}

func TestAssemblyClearsVectorRegistersBeforeReturning(t *testing.T) {
	dataunittest.Clears(t, "sm4xts_amd64.s", 5)
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
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i % 16)
	}
	if !WeakKey(key) {
		t.Error("equal halves not found")
	}
	for _, i := range []int{0, 15, 16, 31} {
		key[i] ^= 0x80
		if WeakKey(key) {
			t.Errorf("halves that differ in byte %d called weak", i)
		}
		key[i] ^= 0x80
	}
}

func TestEqualHalvesAreRefusedUnlessAskedFor(t *testing.T) {
	key := make([]byte, 32)
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
	naiveXTS(want, want, key, 512, [4]uint64{5}, false)
	c.Encrypt(got, got, [2]uint64{5})
	dataunittest.Diff(t, "weak key", got, want)
}
