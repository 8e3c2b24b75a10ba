//go:build invariants || race

package dm_test

import (
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// Races 8 and 9 of dm-fscrypt.md, section 15: evictions against what happens to slots.
// In one manager they are R4, R6 and R13 of blkcrypto.md (keyslot/racesevict_test.go);
// here the requests and the eviction come through a stack.

// slotted makes a leaf device whose engine has so many slots, beneath two linear levels.
func (b *blkWorld) slotted(slots int) (top block.Device, d *dmtest.RAM) {
	e := &watched{Engine: soft.New("cpu", slots), slots: map[int][]byte{}}
	m := keyslot.New(e)
	b.engines, b.managers = append(b.engines, e), append(b.managers, m)
	d = dmtest.NewRAM(blkSize)
	b.Leaf("a", d, m)
	b.Map("mid", onto("a"))
	return b.Map("top", onto("mid")), d
}

// evictFrom evicts k from a device, which leaves it usable.
func (b *blkWorld) evictFrom(name string, k blkKey) {
	if p := b.Device(name).Keyslots().EvictKey(b.w.Ctx, k.Key); p.Err != nil {
		b.w.Errorf("evict from %s: %v", name, p.Err)
	}
}

// Race 8, evict against program: a request misses the slot cache and has its key
// programmed when the key is evicted. An eviction that waits does not meet it at all,
// for the request counts from its entry (TestDMRace07...); one by force does, and after
// its success the key is nowhere. One from the device leaves the key usable, and waits
// for the program that it meets (invariants 50 and 51).
func TestDMRace08EvictAgainstProgram(t *testing.T) {
	for name, c := range map[string]struct {
		points   []string
		outcomes []string
		force    bool
	}{
		"by force": {
			[]string{"dm: routed", "keyslot: missed", "keyslot: granted", "keyslot: programming", "keyslot: programmed", "blkcrypto: dead", "keyslot: evicting", "blkcrypto: asked"},
			[]string{"served", "refused"}, true,
		},
		"from the device": {
			[]string{"keyslot: missed", "keyslot: programming", "keyslot: programmed", "dm: evicting beneath", "keyslot: leaving"},
			[]string{"served"}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, Outcomes: c.outcomes, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				top, d := b.slotted(2)
				k, other := b.key("k", xts4k, 9), b.key("other", xts4k, 10)
				b.write(top, other, 8192, block4k)
				w.Go("write", func() {
					if b.write(top, k, 0, block4k, blkcrypto.ErrKeyEvicted) {
						w.Outcome("served")
						b.wantMedium(d, k, 0, block4k)
					} else {
						w.Outcome("refused")
					}
				})
				programming := false
				w.Go("evict", func() {
					if c.force {
						if _, err := k.Revoke(w.Ctx); err != nil {
							w.Errorf("revoke: %v", err)
						}
						b.wantGone(k)
						return
					}
					programming = b.has("a", k)
					b.evictFrom("top", k)
				})
				w.Check(func() {
					if c.force || programming {
						b.wantGone(k)
					}
					if !b.has("a", other) {
						w.Error("another key was evicted too (invariant 58)")
					}
					b.evict(k)
					b.wantGone(k)
				})
			}})
		})
	}
}

// Race 9, evict against completion: the last reference to a slot goes, the key is
// evicted, another key gets the slot, and somebody who found the first key there comes
// late. He gets the bytes of his own key or programs it anew; nobody gets another's
// (invariants 1 and 11), and the eviction of the first does not hit the second
// (invariants 56 and 58).
func TestDMRace09EvictAgainstCompletionAndReuse(t *testing.T) {
	for name, c := range map[string]struct {
		points   []string
		outcomes []string
		evict    func(b *blkWorld, k blkKey)
	}{
		"evict the key": {
			[]string{"keyslot: found", "keyslot: released", "blkcrypto: dead", "keyslot: emptying", "keyslot: programming"},
			[]string{"served", "refused"},
			func(b *blkWorld, k blkKey) { b.evict(k); b.wantGone(k) },
		},
		"from the device": {
			[]string{"keyslot: found", "keyslot: referenced", "keyslot: emptying", "keyslot: programming"},
			[]string{"served"},
			func(b *blkWorld, k blkKey) { b.evictFrom("top", k) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, Outcomes: c.outcomes, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				top, d := b.slotted(1)
				k, next := b.key("k", xts4k, 9), b.key("next", xts4k, 10)
				b.write(top, k, 8192, block4k)
				w.Go("late", func() {
					if b.write(top, k, 0, block4k, blkcrypto.ErrKeyEvicted) {
						w.Outcome("served")
						b.wantMedium(d, k, 0, block4k)
					} else {
						w.Outcome("refused")
					}
				})
				w.Go("evict", func() { c.evict(b, k) })
				w.Go("next", func() {
					b.write(top, next, 4096, block4k)
					b.wantMedium(d, next, 4096, block4k)
				})
				w.Check(func() {
					b.write(top, next, 12288, block4k)
					b.evict(k)
					b.wantGone(k)
					if !b.has("a", next) {
						w.Error("the eviction of one key hit the next one in its slot (invariant 56)")
					}
				})
			}})
		})
	}
}
