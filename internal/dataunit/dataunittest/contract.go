package dataunittest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"keyway/internal/race"
)

// Contract runs every test of the contract on every implementation.
func Contract(t *testing.T, s Subject) {
	for _, test := range []struct {
		name string
		f    func(s Subject, t *testing.T, name string)
	}{
		{"EqualsReference", Subject.equalsReference},
		{"EveryAlignment", Subject.everyAlignment},
		{"CarryAtEveryUnitOfARun", Subject.carries},
		{"StepsNumberEveryUnit", Subject.steps},
		{"SplitRunsGiveTheSameBytes", Subject.splits},
		{"TouchesNothingOutsideItsArguments", Subject.fences},
		{"ConcurrentUse", Subject.concurrent},
		{"NoAllocationPerCall", Subject.allocations},
		{"MisusePanics", Subject.misuse},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.each(t, func(t *testing.T, name string) { test.f(s, t, name) })
		})
	}
}

// short: with -short, as under an emulator that takes a hundred times as long, and
// under the race detector.
func short() bool { return testing.Short() || race.Enabled }

// limit is how long runs may be. Short ones are just long enough for the widest kernels.
func (s Subject) limit(name string) int {
	if slices.Contains(s.Slow, name) || short() {
		return 20 << 10
	}
	return 70 << 10
}

// blkcrypto.md invariants 2 and 3: bytes depend on key, unit, number and text
// only, and unit k uses number + k with carry.
func (s Subject) equalsReference(t *testing.T, name string) {
	r := seeded(t)
	duns := s.numbers()
	for _, unit := range s.Units {
		for _, units := range []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 130} {
			if units > 1 && unit*units > s.limit(name) {
				continue
			}
			dun := duns[r.IntN(len(duns))]
			key := Random(r, s.Keys[r.IntN(len(s.Keys))])
			src := Random(r, unit*units)
			s.bothWays(t, s.open(t, name, key, unit), key, src, make([]byte, len(src)), unit, dun)
		}
	}
}

// bothWays encrypts and decrypts src by way of dst, and in place in src.
func (s Subject) bothWays(t testing.TB, c Cipher, key, src, dst []byte, unit int, dun [4]uint64) {
	t.Helper()
	defer c.Wipe()
	plain, want := bytes.Clone(src), make([]byte, len(src))
	s.Reference(want, plain, key, unit, dun, false)
	about := what(key, unit, len(src)/unit, dun)

	c.Encrypt(dst, src, dun)
	Diff(t, about+": encrypt", dst, want)
	Diff(t, about+": source after encrypt", src, plain)
	copy(dst, plain)
	c.Encrypt(dst, dst, dun)
	Diff(t, about+": encrypt in place", dst, want)

	copy(src, want)
	c.Decrypt(dst, src, dun)
	Diff(t, about+": decrypt", dst, plain)
	Diff(t, about+": source after decrypt", src, want)
	c.Decrypt(src, src, dun)
	Diff(t, about+": decrypt in place", src, plain)
}

func (s Subject) everyAlignment(t *testing.T, name string) {
	r := seeded(t)
	unit := slices.Max(s.Units[:min(len(s.Units), 4)])
	if slices.Contains(s.Units, 512) {
		unit = 512
	}
	n := 3 * unit
	key := Random(r, s.Keys[0])
	in, out := make([]byte, n+64), make([]byte, n+64)
	for at := range 64 {
		other := r.IntN(64)
		copy(in[at:], Random(r, n))
		s.bothWays(t, s.open(t, name, key, unit), key, in[at:][:n], out[other:][:n], unit, [4]uint64{9})
	}
}

// Fuzz is the seeded fuzz target of a cipher.
func Fuzz(f *testing.F, s Subject) {
	f.Add(uint64(1), uint8(2), uint8(1), uint8(0), uint64(math.MaxUint64), uint64(0), uint64(0), uint64(0))
	f.Add(uint64(2), uint8(1), uint8(70), uint8(3), uint64(math.MaxUint64-3), uint64(math.MaxUint64), uint64(1), uint64(2))
	f.Add(uint64(3), uint8(0), uint8(4), uint8(200), uint64(5), uint64(9), uint64(math.MaxUint64), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, seed uint64, size, units, offset uint8, a, b, c, d uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		unit := s.Units[r.IntN(len(s.Units))]
		n := unit * (int(units)%90 + 1)
		if n > 128<<10 || n > 20<<10 && short() {
			n = unit
		}
		dun := [4]uint64{a, b}
		if s.Limbs == 4 {
			dun = [4]uint64{a, b, c, d}
		}
		key := Random(r, s.Keys[int(size)%len(s.Keys)])
		in, out := int(offset)%16, int(offset)/16
		for _, name := range s.Names {
			src := Random(r, n+in)[in:]
			s.bothWays(t, s.open(t, name, key, unit), key, src, make([]byte, n+out)[out:], unit, dun)
		}
	})
}

// blkcrypto.md invariant 3, for a carry at each place of a run and out of each
// limb.
func (s Subject) carries(t *testing.T, name string) {
	unit := slices.Min(s.Units)
	if slices.Contains(s.Units, 512) {
		unit = 512
	}
	units := 70
	if slices.Contains(s.Slow, name) {
		units = 10
	}
	r := seeded(t)
	key := Random(r, s.Keys[0])
	// Every data unit has the same text: the reference need do each number once,
	// and not once for each place in a run.
	src := bytes.Repeat(Random(r, unit), 2*units+1)
	c := s.open(t, name, key, unit)
	got, want := make([]byte, unit*units), make([]byte, len(src))
	for limb := 1; limb <= s.Limbs; limb++ {
		var top [4]uint64 // the first number beyond limb's carry; zero past the last
		if limb < s.Limbs {
			top[limb] = 3
		}
		s.Reference(want, src, key, unit, s.below(top, uint64(units+1)), false)
		for at := range units + 2 {
			if limb > 1 && at%5 != 0 {
				continue
			}
			dun := s.below(top, uint64(at))
			c.Encrypt(got, src[:len(got)], dun)
			Diff(t, fmt.Sprintf("number %x", dun), got, want[(units+1-at)*unit:][:len(got)])
			c.Decrypt(got, got, dun)
			Diff(t, fmt.Sprintf("number %x, decrypted", dun), got, src[:len(got)])
		}
	}
}

// A run gives the same bytes however it is cut into calls.
func (s Subject) splits(t *testing.T, name string) {
	r := seeded(t)
	unit, units := slices.Min(s.Units), 100
	if slices.Contains(s.Units, 512) {
		unit = 512
	}
	const m = math.MaxUint64
	key, src := Random(r, s.Keys[0]), Random(r, unit*units)
	c := s.open(t, name, key, unit)
	dun := [4]uint64{m - 50, m}
	whole, parts := make([]byte, len(src)), make([]byte, len(src))
	for _, op := range []func(dst, src []byte, dun [4]uint64){c.Encrypt, c.Decrypt} {
		op(whole, src, dun)
		for at := 0; at < units; {
			n := min(1+r.IntN(20), units-at)
			op(parts[at*unit:], src[at*unit:(at+n)*unit], Add(dun, uint64(at), s.Limbs))
			at += n
		}
		Diff(t, "in parts", parts, whole)
	}
}

func (s Subject) fences(t *testing.T, name string) {
	r := seeded(t)
	key := Random(r, s.Keys[len(s.Keys)-1])
	dun := [4]uint64{math.MaxUint64, 7}
	for _, unit := range s.Units {
		for _, units := range []int{1, 3, 17, 64, 65} {
			n := unit * units
			if units > 1 && n > s.limit(name) {
				continue
			}
			plain, want := Random(r, n), make([]byte, n)
			s.Reference(want, plain, key, unit, dun, false)
			c := s.open(t, name, key, unit)
			for _, front := range []bool{false, true} {
				src, dst := Fenced(t, n, front), Fenced(t, n, front)
				copy(src, plain)
				c.Encrypt(dst, src, dun)
				Diff(t, "fenced", dst, want)
				c.Decrypt(dst, dst, dun)
				Diff(t, "fenced in place", dst, plain)
			}
			// The source may be read only, and a longer output keeps its tail.
			tail := bytes.Repeat([]byte{0x5a}, 64)
			dst := bytes.Repeat([]byte{0x5a}, n+64)
			c.Encrypt(dst, readOnly(t, plain), dun)
			Diff(t, "from read-only memory", dst, want)
			Diff(t, "tail of a long output", dst[n:], tail)
			c.Decrypt(dst, readOnly(t, want), dun)
			Diff(t, "from read-only memory, decrypted", dst, plain)
			Diff(t, "tail of a long output", dst[n:], tail)
			c.Wipe()
		}
	}
}

func (s Subject) concurrent(t *testing.T, name string) {
	r := seeded(t)
	unit := slices.Min(s.Units)
	key, src := Random(r, s.Keys[0]), Random(r, unit*16)
	dun := [4]uint64{math.MaxUint64 - 3}
	c := s.open(t, name, key, unit)
	want := make([]byte, len(src))
	s.Reference(want, src, key, unit, dun, false)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			dst := make([]byte, len(src))
			for range 50 {
				c.Encrypt(dst, src, dun)
				if !bytes.Equal(dst, want) {
					t.Error("wrong bytes under concurrency")
					return
				}
				c.Decrypt(dst, dst, dun)
				if !bytes.Equal(dst, src) {
					t.Error("wrong bytes under concurrency, decrypted")
					return
				}
			}
		})
	}
	wg.Wait()
}

func (s Subject) allocations(t *testing.T, name string) {
	unit := s.Units[0]
	c := s.open(t, name, Random(seeded(t), s.Keys[0]), unit)
	buf := make([]byte, 9*unit)
	if n := testing.AllocsPerRun(50, func() {
		c.Encrypt(buf, buf, [4]uint64{1})
		c.Decrypt(buf, buf, [4]uint64{1})
	}); n != 0 && !race.Enabled { // under the race detector sync.Pool forgets on purpose
		t.Errorf("%v allocations per call, want 0", n)
	}
}

func (s Subject) misuse(t *testing.T, name string) {
	r := seeded(t)
	unit := s.Units[0]
	for _, bad := range []struct{ key, unit int }{{0, unit}, {s.Keys[0] - 1, unit}, {s.Keys[0] + 1, unit}, {s.Keys[0], 0}, {s.Keys[0], -16}, {s.Keys[0], unit + 8}} {
		if c, err := s.New(name, Random(r, bad.key), bad.unit); err == nil {
			c.Wipe()
			t.Errorf("key of %d bytes, unit %d: accepted", bad.key, bad.unit)
		}
	}
	if _, err := s.New("abacus", Random(r, s.Keys[0]), unit); err == nil {
		t.Error("unknown implementation accepted")
	}
	c := s.open(t, name, Random(r, s.Keys[0]), unit)
	buf := make([]byte, 4*unit)
	c.Encrypt(nil, nil, [4]uint64{}) // no work is no error
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		f()
	}
	panics("part of a unit", func() { c.Encrypt(buf, buf[:unit+1], [4]uint64{}) })
	panics("short output", func() { c.Encrypt(buf[:unit], buf[:2*unit], [4]uint64{}) })
	panics("overlap", func() { c.Encrypt(buf[1:], buf[:2*unit], [4]uint64{}) })
	panics("overlap", func() { c.Decrypt(buf, buf[1:][:2*unit], [4]uint64{}) })
	c.Wipe()
	c.Wipe()
	panics("use after wipe", func() { c.Encrypt(buf, buf, [4]uint64{}) })
	panics("use after wipe", func() { c.Decrypt(buf, buf, [4]uint64{}) })
}
