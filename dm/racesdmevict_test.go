//go:build invariants || race

package dm_test

import (
	"testing"

	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// Races 6 to 9 of dm-fscrypt.md, section 15: evictions.

// has reports whether k may be in the engine of a leaf: by the manager's table, which
// never says less than the truth, and by the engine itself.
func (b *blkWorld) has(leaf string, k blkKey) bool {
	e := b.Device(leaf).Engine()
	for _, r := range e.Residents() {
		if r.ID == k.ID() {
			return true
		}
	}
	for i, m := range b.managers {
		if m == e && b.engines[i].has(k.bytes) {
			return true
		}
	}
	return false
}

// wantIn checks in which of some leaves' engines k is.
func (b *blkWorld) wantIn(k blkKey, want map[string]bool) {
	for leaf, in := range want {
		if got := b.has(leaf, k); got != in {
			b.w.Errorf("%v in the engine of %s: %v, want %v (invariants 59 and 61)", k, leaf, got, in)
		}
	}
}

// disks makes leaves with an engine each.
func (b *blkWorld) disks(names ...string) map[string]*dmtest.RAM {
	all := map[string]*dmtest.RAM{}
	for _, name := range names {
		all[name] = b.disk(name, b.engine())
	}
	return all
}

// Race 6, evict against swap: an eviction of the key against the swap that drops its
// device is TestRaceBlk07..., in three ways. Here it is the swap that evicts
// (invariant 61), in a stack of which two levels are reloaded at once: the key is in
// the engine of a device to which, in the end, no way leads. Whichever of the two is
// first, one of them takes it out, and leaves alone what other devices use there
// (invariants 58 and 59).
func TestDMRace06ReloadsOfTwoLevelsEvict(t *testing.T) {
	for name, c := range map[string]struct {
		points []string
		second func(b *blkWorld)
	}{
		"reload above": {
			[]string{"dm: suspended", "dm: swapped", "dm: retiring"},
			func(b *blkWorld) { b.reload("top", "0 128 linear c 0") },
		},
		"removal above": {
			[]string{"dm: suspended", "dm: swapped", "dm: removing", "dm: retiring", "dm: discarding"},
			func(b *blkWorld) {
				if err := b.Device("top").Remove(b.w.Ctx, dm.RemoveOptions{}); err != nil {
					b.w.Errorf("remove: %v", err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points: c.points,
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					b.disks("a", "b", "c")
					b.Map("mid", "0 128 linear a 0")
					top, other := b.Map("top", "0 128 linear mid 0"), b.Map("other", "0 64 linear a 64")
					k, theirs := b.key("k", xts4k, 9), b.key("theirs", xts4k, 10)
					b.write(top, k, 0, block4k)
					b.write(other, theirs, 0, block4k)
					if err := top.Close(); err != nil {
						w.Fatal(err)
					}
					b.wantIn(k, map[string]bool{"a": true, "b": false})
					w.Go("mid", func() { b.reload("mid", "0 128 linear b 0") })
					w.Go("top", func() { c.second(b) })
					w.Check(func() {
						b.wantIn(k, map[string]bool{"a": false, "b": false})
						b.wantIn(theirs, map[string]bool{"a": true})
					})
				},
			})
		})
	}
}
