package dataunittest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"

	"keyway/internal/arena"
	"keyway/internal/invariant"
)

// A Wide is a cipher whose blocks depend on all of their data unit, so that it passes
// over the text several times, by way of borrowed memory.
type Wide struct {
	Names []string // of its implementations

	// Open returns a cipher with any key for data units of unit bytes, and how many of
	// them it transforms at once at most. It is wiped by the test's cleanup.
	Open func(t testing.TB, name string, unit int) (c Cipher, batch int)

	// FirstMixes: the block of a data unit that is a function of all the others of the
	// result is the first; else it is the last.
	FirstMixes bool

	// WorkSize is how much memory a call borrows beside a copy of the text, in bytes.
	WorkSize int
}

const wideBlock = 16

// Run has all tests.
func (w Wide) Run(t *testing.T) {
	t.Run("source is read once", w.sourceIsReadOnce)
	t.Run("destination gets nothing but the result", w.destinationGetsNothingButTheResult)
	t.Run("destination is not read", w.destinationIsNotRead)
	t.Run("borrowed memory is erased", w.borrowedMemoryIsErased)
}

// eachShape goes through runs that pass in one batch and in several.
func (w Wide) eachShape(t *testing.T, f func(t *testing.T, c Cipher, unit, units int)) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("needs two threads")
	}
	for _, name := range w.Names {
		for _, s := range []struct{ unit, units int }{{512, 20}, {4096, 5}, {1040, 3}, {20480, 1}} {
			t.Run(fmt.Sprintf("%s/%dx%d", name, s.unit, s.units), func(t *testing.T) {
				c, _ := w.Open(t, name, s.unit)
				f(t, c, s.unit, s.units)
			})
		}
	}
}

// Whoever changes the source meanwhile gets the transformation of something it held:
// a second look would make noise of it, or tell him differences.
func (w Wide) sourceIsReadOnce(t *testing.T) {
	w.eachShape(t, func(t *testing.T, c Cipher, unit, units int) {
		n := unit * units
		src, theirs := Alias(t, n)
		dst, back := make([]byte, n), make([]byte, n)
		var texts [2][]byte
		for i := range texts {
			texts[i] = Random(rand.New(rand.NewPCG(3, uint64(i))), n)
		}
		for _, way := range []struct {
			name     string
			op, undo func(dst, src []byte, dun [4]uint64)
		}{{"encrypt", c.Encrypt, c.Decrypt}, {"decrypt", c.Decrypt, c.Encrypt}} {
			turn := 0
			Meanwhile(func() { copy(theirs, texts[turn%2]); turn++ }, func() {
				way.op(dst, src, [4]uint64{5})
				way.undo(back, dst, [4]uint64{5})
				for i := range back {
					if back[i] != texts[0][i] && back[i] != texts[1][i] {
						t.Fatalf("%s: byte %d is the transformation of %#02x, the source held %#02x and %#02x",
							way.name, i, back[i], texts[0][i], texts[1][i])
					}
				}
			})
		}
	})
}

// The destination may be a medium: each word of it is what it was or what it will
// be (blkcrypto.md invariant 5).
func (w Wide) destinationGetsNothingButTheResult(t *testing.T) {
	w.eachShape(t, func(t *testing.T, c Cipher, unit, units int) {
		n := unit * units
		dst, theirs := Alias(t, n)
		src := Random(rand.New(rand.NewPCG(4, 4)), n)
		before := Random(rand.New(rand.NewPCG(5, 5)), n)
		words := func(b []byte) []uint64 { return unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), n/8) }
		for name, op := range map[string]func(dst, src []byte, dun [4]uint64){"encrypt": c.Encrypt, "decrypt": c.Decrypt} {
			after := make([]byte, n)
			op(after, src, [4]uint64{5})
			copy(dst, before)
			seen, old, result := words(theirs), words(before), words(after)
			reset := func() { // word by word: copy may move single bytes
				for i, w := range old {
					atomic.StoreUint64(&words(dst)[i], w)
				}
			}
			Meanwhile(func() {
				for i := range seen {
					if w := atomic.LoadUint64(&seen[i]); w != old[i] && w != result[i] {
						t.Errorf("%s: word %d of the destination was %#x: neither the old %#x nor the result %#x", name, i, w, old[i], result[i])
						return
					}
				}
			}, func() {
				op(dst, src, [4]uint64{5})
				reset()
			})
		}
	})
}

// What others write to the destination meanwhile does not reach the block that
// depends on all of the result.
func (w Wide) destinationIsNotRead(t *testing.T) {
	w.eachShape(t, func(t *testing.T, c Cipher, unit, units int) {
		n := unit * units
		dst, theirs := Alias(t, n)
		src := Random(rand.New(rand.NewPCG(6, 6)), n)
		noise := Random(rand.New(rand.NewPCG(7, 7)), n)
		for name, op := range map[string]func(dst, src []byte, dun [4]uint64){"encrypt": c.Encrypt, "decrypt": c.Decrypt} {
			want := make([]byte, n)
			op(want, src, [4]uint64{5})
			mixed, others := unit-wideBlock, 0 // where they begin in a unit
			if w.FirstMixes {
				mixed, others = 0, wideBlock
			}
			Meanwhile(func() {
				for u := range units {
					copy(theirs[u*unit+others:][:unit-wideBlock], noise)
				}
			}, func() {
				op(dst, src, [4]uint64{5})
				for u := range units {
					at := u*unit + mixed
					Diff(t, fmt.Sprintf("%s: byte %d on of unit %d", name, mixed, u), dst[at:][:wideBlock], want[at:][:wideBlock])
				}
			})
		}
	})
}

// What a call derived, and its copy of the text, are gone from the memory it
// borrowed before that goes back.
func (w Wide) borrowedMemoryIsErased(t *testing.T) {
	if invariant.Enabled {
		t.Skip("package arena overwrites what is returned")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // or the memory may be another one
	mark := bytes.Repeat([]byte{0xa5}, 8)
	for _, name := range w.Names {
		found := 0
		for _, s := range []struct{ unit, units int }{{512, 3}, {4096, 1}, {528, 2}, {5008, 1}, {512, 17}} {
			c, batch := w.Open(t, name, s.unit)
			data := bytes.Repeat([]byte{0x17}, s.unit*s.units)
			used := w.WorkSize + s.unit*min(s.units, batch)
			for range 20 {
				mark[0]++ // others are those of a call before
				b := arena.Get(used)
				whole := b.Bytes()[:cap(b.Bytes())]
				for i := 0; i < len(whole); i += 8 {
					copy(whole[i:], mark)
				}
				b.Put()
				c.Encrypt(data, data, [4]uint64{1})
				b = arena.Get(used)
				whole = b.Bytes()[:cap(b.Bytes())]
				if bytes.Equal(whole[len(whole)-8:], mark) { // it is the one
					found++
					for i := 0; i < used; i += 8 {
						word := whole[i:][:8]
						untouched := i < w.WorkSize && bytes.Equal(word, mark) // room for more data units
						if !untouched && !bytes.Equal(word, make([]byte, 8)) {
							t.Fatalf("%s, units of %d: %x is left at %d", name, s.unit, word, i)
						}
					}
				}
				b.Put()
			}
		}
		if found == 0 {
			t.Errorf("%s: never saw the borrowed memory again", name)
		}
	}
}
