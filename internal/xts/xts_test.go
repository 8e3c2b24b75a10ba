package xts

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
)

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

func mustOpen(t testing.TB, name string, key []byte, unit int) *Cipher {
	t.Helper()
	c, err := NewWith(name, key, unit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c
}

// seeded returns a generator whose seed shows in the log of a failing test.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// tweaks around every carry.
var tweaks = [][2]uint64{
	{}, {1, 0}, {math.MaxUint32 - 1, 0}, {math.MaxUint64 - 2, 0}, {math.MaxUint64, 7},
	{math.MaxUint64 - 20, math.MaxUint64}, {math.MaxUint64, math.MaxUint64}, {0x0123456789abcdef, 0xfedcba9876543210},
}

// blkcrypto.md invariants 2 and 3: bytes depend on key, unit, number and text
// only, and unit k uses number + k with carry.
func TestEqualsNaiveReference(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		r := seeded(t)
		for _, unit := range []int{16, 32, 48, 128, 240, 256, 384, 512, 768, 1024, 4096, 65536} {
			for _, units := range []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 130} {
				if unit*units > 70<<10 || name == "generic" && unit*units > 20<<10 && unit != 65536 {
					continue
				}
				tw := tweaks[r.IntN(len(tweaks))]
				key := random(r, []int{32, 48, 64}[r.IntN(3)])
				offIn, offOut := r.IntN(64), r.IntN(64)
				n := unit * units
				src := random(r, n+offIn)[offIn:]
				plain := bytes.Clone(src)
				want := make([]byte, n)
				naiveXTS(want, src, key, unit, tw, false)
				c := mustOpen(t, name, key, unit)
				what := fmt.Sprintf("AES-%d unit %d x %d tweak %x offsets %d %d", len(key)*4, unit, units, tw, offIn, offOut)

				got := make([]byte, n+offOut)[offOut:]
				c.Encrypt(got, src, tw)
				diff(t, what+" encrypt", got, want)
				diff(t, what+" source after encrypt", src, plain)

				back := make([]byte, n+offOut)[offOut:]
				c.Decrypt(back, want, tw)
				diff(t, what+" decrypt", back, plain)
				diff(t, what+" source after decrypt", got, want)

				c.Encrypt(src, src, tw)
				diff(t, what+" encrypt in place", src, want)
				c.Decrypt(src, src, tw)
				diff(t, what+" decrypt in place", src, plain)
				c.Wipe()
			}
		}
	})
}

func diff(t *testing.T, what string, got, want []byte) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#02x, want %#02x", what, i, got[i], want[i])
		}
	}
}

func FuzzEqualsNaiveReference(f *testing.F) {
	f.Add(uint64(1), uint8(2), uint8(1), uint16(64), uint64(math.MaxUint64), uint64(0))
	f.Add(uint64(2), uint8(1), uint8(70), uint16(1), uint64(math.MaxUint64-3), uint64(math.MaxUint64))
	f.Add(uint64(3), uint8(0), uint8(4), uint16(256), uint64(5), uint64(9))
	f.Fuzz(func(t *testing.T, seed uint64, size, units uint8, blocks uint16, lo, hi uint64) {
		unit := (int(blocks)%512 + 1) * blockLen
		if blocks&1 == 0 {
			unit = (unit + 255) &^ 255
		}
		n := unit * (int(units)%90 + 1)
		if n > 128<<10 {
			t.Skip("large")
		}
		r := rand.New(rand.NewPCG(seed, 1))
		key := random(r, 32+16*(int(size)%3))
		src, tw := random(r, n), [2]uint64{lo, hi}
		want, got := make([]byte, n), make([]byte, n)
		naiveXTS(want, src, key, unit, tw, false)
		for _, name := range Implementations() {
			c := mustOpen(t, name, key, unit)
			c.Encrypt(got, src, tw)
			diff(t, name+" encrypt", got, want)
			c.Decrypt(got, got, tw)
			diff(t, name+" decrypt", got, src)
		}
	})
}

// blkcrypto.md invariant 3, for a carry at each place of a run.
func TestCarryAtEveryUnitOfARun(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		const unit, units = 256, 70
		r := seeded(t)
		key, src := random(r, 64), random(r, unit*units)
		c := mustOpen(t, name, key, unit)
		got, want := make([]byte, len(src)), make([]byte, len(src))
		for at := range uint64(units + 2) {
			tw := [2]uint64{-at, -(at % 2)} // on every second turn past 2^128
			naiveXTS(want, src, key, unit, tw, false)
			c.Encrypt(got, src, tw)
			diff(t, fmt.Sprintf("tweak %x", tw), got, want)
		}
	})
}

// A run gives the same bytes however it is cut into calls.
func TestSplitRunsGiveTheSameBytes(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		r := seeded(t)
		const unit, units = 512, 100
		key, src := random(r, 64), random(r, unit*units)
		c := mustOpen(t, name, key, unit)
		tw := [2]uint64{math.MaxUint64 - 50, math.MaxUint64}
		whole, parts := make([]byte, len(src)), make([]byte, len(src))
		c.Encrypt(whole, src, tw)
		for at := 0; at < units; {
			n := min(1+r.IntN(20), units-at)
			c.Encrypt(parts[at*unit:], src[at*unit:(at+n)*unit], advance(tw, at))
			at += n
		}
		diff(t, "in parts", parts, whole)
	})
}

// fenced returns n bytes that end (or, if front, begin) at an inaccessible page.
func fenced(t *testing.T, n int, front bool) []byte {
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

func TestTouchesNothingOutsideItsArguments(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		r := seeded(t)
		key := random(r, 64)
		for _, unit := range []int{16, 256, 512, 4096} {
			for _, units := range []int{1, 3, 64, 65} {
				n := unit * units
				want := make([]byte, n)
				plain := random(r, n)
				naiveXTS(want, plain, key, unit, tweaks[4], false)
				c := mustOpen(t, name, key, unit)
				for _, front := range []bool{false, true} {
					src, dst := fenced(t, n, front), fenced(t, n, front)
					copy(src, plain)
					c.Encrypt(dst, src, tweaks[4])
					diff(t, "fenced", dst, want)
					c.Decrypt(dst, dst, tweaks[4])
					diff(t, "fenced in place", dst, plain)
				}
				// A longer output keeps its tail.
				dst := bytes.Repeat([]byte{0x5a}, n+64)
				c.Encrypt(dst, plain, tweaks[4])
				diff(t, "tail of a long output", dst[n:], bytes.Repeat([]byte{0x5a}, 64))
			}
		}
	})
}

func TestConcurrentUseOfOneCipher(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		r := seeded(t)
		const unit = 512
		key, src := random(r, 64), random(r, unit*16)
		c := mustOpen(t, name, key, unit)
		want := make([]byte, len(src))
		naiveXTS(want, src, key, unit, tweaks[3], false)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				dst := make([]byte, len(src))
				for range 50 {
					c.Encrypt(dst, src, tweaks[3])
					if !bytes.Equal(dst, want) {
						t.Error("wrong bytes under concurrency")
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestNoAllocationPerCall(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		c := mustOpen(t, name, random(seeded(t), 64), 512)
		buf := make([]byte, 8*512)
		if n := testing.AllocsPerRun(100, func() {
			c.Encrypt(buf, buf, tweaks[1])
			c.Decrypt(buf, buf, tweaks[1])
		}); n != 0 {
			t.Errorf("%v allocations per call, want 0", n)
		}
	})
}

func TestMisuseIsRefused(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		for _, tc := range []struct{ key, unit int }{{16, 512}, {0, 512}, {63, 512}, {128, 512}, {64, 0}, {64, -16}, {64, 520}, {64, 8}} {
			if c, err := NewWith(name, make([]byte, tc.key), tc.unit); err == nil {
				c.Wipe()
				t.Errorf("key of %d bytes, unit %d: accepted", tc.key, tc.unit)
			}
		}
		c := mustOpen(t, name, make([]byte, 64), 512) // equal halves: accepted
		buf := make([]byte, 2048)
		c.Encrypt(nil, nil, tweaks[0]) // no work is no error
		panics := func(what string, f func()) {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", what)
				}
			}()
			f()
		}
		panics("part of a unit", func() { c.Encrypt(buf, buf[:100], tweaks[0]) })
		panics("short output", func() { c.Encrypt(buf[:512], buf[:1024], tweaks[0]) })
		panics("overlap", func() { c.Encrypt(buf[16:], buf[:1024], tweaks[0]) })
		panics("overlap", func() { c.Decrypt(buf, buf[512:1536], tweaks[0]) })
		c.Wipe()
		c.Wipe()
		panics("use after wipe", func() { c.Encrypt(buf, buf, tweaks[0]) })
	})
	if _, err := NewWith("abacus", make([]byte, 64), 512); err == nil {
		t.Error("unknown implementation accepted")
	}
	if _, err := choose("abacus"); err == nil {
		t.Error("KEYWAY_XTS=abacus accepted")
	}
	if im, err := choose("generic"); err != nil || im.name != "generic" {
		t.Errorf("KEYWAY_XTS=generic chose %q, %v", im.name, err)
	}
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

// Key set-up and its end, as at each reprogramming of a keyslot.
func BenchmarkNewWipe(b *testing.B) {
	for _, name := range Implementations() {
		b.Run(name, func(b *testing.B) {
			key := random(rand.New(rand.NewPCG(1, 2)), 64)
			for b.Loop() {
				c, err := NewWith(name, key, 4096)
				if err != nil {
					b.Fatal(err)
				}
				c.Wipe()
			}
		})
	}
}

func BenchmarkEncrypt(b *testing.B) { benchmark(b, (*Cipher).Encrypt) }
func BenchmarkDecrypt(b *testing.B) { benchmark(b, (*Cipher).Decrypt) }

func benchmark(b *testing.B, op func(*Cipher, []byte, []byte, [2]uint64)) {
	for _, name := range Implementations() {
		for _, unit := range []int{512, 4096} {
			for _, units := range []int{1, 8, 64} {
				b.Run(fmt.Sprintf("%s/%dx%d", name, unit, units), func(b *testing.B) {
					c := mustOpen(b, name, random(rand.New(rand.NewPCG(1, 2)), 64), unit)
					src, dst := pages(b, unit*units), pages(b, unit*units)
					b.SetBytes(int64(len(src)))
					b.ReportAllocs()
					tw := [2]uint64{1, 0}
					for b.Loop() {
						op(c, dst, src, tw)
						tw[0] += uint64(units)
					}
				})
			}
		}
	}
}

// pages returns page-aligned memory, as the arena hands out.
func pages(b *testing.B, n int) []byte {
	m, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { syscall.Munmap(m) })
	return m
}
