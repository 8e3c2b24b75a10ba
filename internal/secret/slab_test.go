package secret

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
)

func panics(t *testing.T, what, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if r, ok := recover().(string); !ok || !strings.Contains(r, want) {
			t.Errorf("%s: panic value %v, want one with %q", what, r, want)
		}
	}()
	f()
}

func TestClassesFitTheirSecrets(t *testing.T) {
	for n := 1; n <= maxSlot-canary; n++ {
		c := classFor(n)
		room := n + canary
		if c.size < room || c.size%align != 0 {
			t.Fatalf("%d bytes: slot of %d", n, c.size)
		}
		if spare := c.size - room; spare >= max(align, room/4) {
			t.Errorf("%d bytes: slot of %d wastes %d", n, c.size, spare)
		}
		if c.least%os.Getpagesize() != 0 || c.least < c.size || c.least%c.size > c.least/8 {
			t.Errorf("slots of %d: smallest slab of %d bytes", c.size, c.least)
		}
	}
}

// A key must not cost a page: what 10,000 of the longest XTS keys lock is at most
// twice their bytes and one slab.
func TestTenThousandKeysLockFewPages(t *testing.T) {
	withSlots(t, func(t *testing.T) {
		before := lockedBytes()
		all, slabs := make([]*Buffer, 10000), map[*slab]bool{}
		for i := range all {
			all[i] = mustNew(t, 64)
			slabs[all[i].slab] = true
		}
		used := lockedBytes() - before
		t.Logf("%d keys of 64 bytes: %d bytes locked", len(all), used)
		if limit := int64(len(all)*2*64 + maxSlab); used > limit {
			t.Errorf("%d keys lock %d bytes, want at most %d", len(all), used, limit)
		}
		// Each takes three of the mappings that a process may have, 65530 by default.
		if limit := int(used/maxSlab) + 10; len(slabs) > limit {
			t.Errorf("%d slabs, want at most %d", len(slabs), limit)
		}
		for _, b := range all {
			b.Wipe()
		}
		// One slab may be kept: none may be held by keys that are gone.
		if kept := lockedBytes() - before; kept > maxSlab {
			t.Errorf("%d bytes are locked for no key, want at most %d", kept, maxSlab)
		}
	})
}

func TestKeyThatComesAndGoesCostsNoSlab(t *testing.T) {
	withSlots(t, func(t *testing.T) {
		mustNew(t, 5000).Wipe()
		before := lockedBytes()
		b := mustNew(t, 5000)
		s := b.slab
		b.Wipe()
		if c := mustNew(t, 5000); c.slab != s || lockedBytes() != before {
			t.Error("the slab of the last key was not kept for the next")
		}
	})
}

func TestWriteBeyondTheEndIsFoundAtWipe(t *testing.T) {
	withSlots(t, func(t *testing.T) {
		for _, n := range []int{1, 48, 49, 64, 720} {
			b, err := New(n)
			if err != nil {
				t.Fatal(err)
			}
			mem, at := b.mem, n
			if n%2 == 0 {
				at = len(b.mem) - 1
			}
			copy(b.data, "secret")
			b.mem[at] = 0
			panics(t, "overrun", "wrote beyond the end", b.Wipe)
			if !bytes.Equal(mem, make([]byte, len(mem))) {
				t.Errorf("%d bytes: not wiped after an overrun", n)
			}
			if !b.Wiped() {
				t.Errorf("%d bytes: overrun buffer still lives", n)
			}
		}
	})
}

func TestWriteAfterWipeIsFoundByTheNextOwner(t *testing.T) {
	withSlots(t, func(t *testing.T) {
		mustNew(t, 900) // keeps the slab
		b := mustNew(t, 900)
		late, s, slot := b.Bytes(), b.slab, b.mem
		b.Wipe()
		late[899] = 1
		panics(t, "late write", "after its Wipe", func() { New(900) })
		late[899] = 0
		s.class.give(s, slot) // New keeps it from everyone
	})
}

// Owners of many sizes come and go at once; each finds zeroes and keeps its own.
func TestSlotsUnderConcurrency(t *testing.T) {
	withSlots(t, func(t *testing.T) {
		before := lockedBytes()
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 1))
				var mine []*Buffer
				drop := func() {
					i := r.IntN(len(mine))
					b := mine[i]
					for _, x := range b.Bytes() {
						if x != byte(g+1) {
							t.Errorf("a secret of %d bytes was overwritten", b.Len())
							break
						}
					}
					b.Wipe()
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
				}
				for range 2000 {
					if len(mine) > 60 || len(mine) > 0 && r.IntN(3) == 0 {
						drop()
						continue
					}
					b, err := New(1 + r.IntN(64)*r.IntN(64))
					if err != nil {
						t.Error(err)
						break
					}
					p := b.Bytes()
					if !bytes.Equal(p, make([]byte, len(p))) {
						t.Error("a new secret is not zero")
					}
					for i := range p {
						p[i] = byte(g + 1)
					}
					mine = append(mine, b)
				}
				for len(mine) > 0 {
					drop()
				}
			})
		}
		wg.Wait()
		for _, c := range classes {
			if c.some != nil || c.empty != nil && c.bytes != len(inner(c.empty.mapping)) {
				t.Errorf("slots of %d: %d bytes are still held by nobody", c.size, c.bytes)
			}
		}
		t.Logf("%d bytes kept", lockedBytes()-before)
	})
}

func TestOneAllocationPerSecret(t *testing.T) {
	withSlots(t, func(t *testing.T) {
		mustNew(t, 64)
		if n := testing.AllocsPerRun(100, func() {
			b, err := New(64)
			if err != nil {
				t.Fatal(err)
			}
			b.Wipe()
		}); n != 1 {
			t.Errorf("%v allocations, want 1: the Buffer", n)
		}
	})
}
