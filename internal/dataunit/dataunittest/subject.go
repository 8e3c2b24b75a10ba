// Package dataunittest is the contract that every package of data-unit ciphers
// keeps with every implementation: equal to a naive reference for all lengths,
// alignments and carries, and touching nothing but its output.
package dataunittest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A Cipher is one expanded key.
type Cipher interface {
	Encrypt(dst, src []byte, dun [4]uint64)
	Decrypt(dst, src []byte, dun [4]uint64)
	Wipe()
}

// Narrow makes a Cipher of one that takes numbers of 128 bits.
func Narrow(c interface {
	Encrypt(dst, src []byte, dun [2]uint64)
	Decrypt(dst, src []byte, dun [2]uint64)
	Wipe()
}) Cipher {
	if s, ok := c.(narrowStepper); ok {
		return steppedNarrow{narrow{c}, s}
	}
	return narrow{c}
}

type narrow struct {
	c interface {
		Encrypt(dst, src []byte, dun [2]uint64)
		Decrypt(dst, src []byte, dun [2]uint64)
		Wipe()
	}
}

func (n narrow) Encrypt(dst, src []byte, dun [4]uint64) { n.c.Encrypt(dst, src, [2]uint64(dun[:2])) }
func (n narrow) Decrypt(dst, src []byte, dun [4]uint64) { n.c.Decrypt(dst, src, [2]uint64(dun[:2])) }
func (n narrow) Wipe()                                  { n.c.Wipe() }

// A Subject is one cipher under test.
type Subject struct {
	Package string   // named in panics
	Names   []string // its implementations on this CPU, the best first
	New     func(name string, key []byte, unit int) (Cipher, error)

	Keys  []int // key sizes, bytes
	Units []int // data unit sizes, bytes, odd ones too
	Limbs int   // 64-bit words of a data unit number: 2 or 4

	// Reference does the same one data unit after the other, written to be read:
	// nobody may optimise it.
	Reference func(dst, src, key []byte, unit int, dun [4]uint64, decrypt bool)
	// Slow implementations are tried with less data.
	Slow []string
}

// each runs f for every implementation. KEYWAY_REQUIRE names those that must be
// there: on a machine that is known to have them a skip is a failure.
func (s Subject) each(t *testing.T, f func(t *testing.T, name string)) {
	for _, want := range strings.Fields(os.Getenv("KEYWAY_REQUIRE_" + strings.ToUpper(s.Package))) {
		if !slices.Contains(s.Names, want) {
			t.Fatalf("implementation %s is required here; there are %v", want, s.Names)
		}
	}
	for _, name := range s.Names {
		t.Run(name, func(t *testing.T) { f(t, name) })
	}
}

func (s Subject) open(t testing.TB, name string, key []byte, unit int) Cipher {
	t.Helper()
	c, err := s.New(name, key, unit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c
}

// numbers around every carry.
func (s Subject) numbers() [][4]uint64 {
	const m = math.MaxUint64
	all := [][4]uint64{
		{}, {1}, {math.MaxUint32 - 1}, {m - 2}, {m, 7}, {m - 20, m}, {m, m}, {0x0123456789abcdef, 0xfedcba9876543210},
	}
	if s.Limbs == 4 {
		all = append(all, [4]uint64{m - 3, m, 5}, [4]uint64{m - 1, m, m, 9}, [4]uint64{m - 5, m, m, m}, [4]uint64{1, 2, 3, 1 << 63})
	}
	return all
}

// below returns dun - n.
func (s Subject) below(dun [4]uint64, n uint64) [4]uint64 {
	borrow := n
	for i := range s.Limbs {
		before := dun[i]
		dun[i] -= borrow
		if dun[i] <= before {
			break
		}
		borrow = 1
	}
	return dun
}

// Add returns dun + n in words limbs, as data units are numbered: for references.
func Add(dun [4]uint64, n uint64, limbs int) [4]uint64 {
	for i := range limbs {
		dun[i] += n
		if dun[i] >= n {
			break
		}
		n = 1
	}
	return dun
}

// seeded returns a generator whose seed shows in the log of a failing test.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Random returns n bytes from r.
func Random(r *rand.Rand, n int) []byte {
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n:n]
}

// Diff fails the test at the first byte in which got differs from want.
func Diff(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got[:len(want)], want) { // most of the time, and a hundred times as fast
		return
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#02x, want %#02x", what, i, got[i], want[i])
		}
	}
}

// Fenced returns n bytes that end (or, if front, begin) at an inaccessible page.
func Fenced(t testing.TB, n int, front bool) []byte {
	page := syscall.Getpagesize()
	size := (n + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(m) })
	for _, guard := range [][]byte{m[:page], m[page+size:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	if front {
		return m[page : page+n]
	}
	return m[page+size-n : page+size]
}

// readOnly returns a copy of b in memory that cannot be written.
func readOnly(t testing.TB, b []byte) []byte {
	page := syscall.Getpagesize()
	m, err := syscall.Mmap(-1, 0, (len(b)+page-1)/page*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(m) })
	n := copy(m, b)
	if err := syscall.Mprotect(m, syscall.PROT_READ); err != nil {
		t.Fatal(err)
	}
	return m[:n]
}

func what(key []byte, unit, units int, dun [4]uint64) string {
	return fmt.Sprintf("key of %d bytes, unit %d x %d, number %x", len(key), unit, units, dun)
}
