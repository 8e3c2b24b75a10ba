//go:build invariants || race

package dm_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// Races 10 and 11 of dm-fscrypt.md, section 15: a key in many places.

// A faulty engine refuses to empty its slots as long as it is broken.
type faulty struct {
	*watched
	broken atomic.Bool
}

var errStuck = errors.New("the engine does not answer")

func (e *faulty) Evict(slot int) error {
	if e.broken.Load() {
		return errStuck
	}
	return e.watched.Evict(slot)
}

// A patient world takes what is reported of faults that the test makes.
type patient struct {
	*interleave.World
	warned int
}

func (p *patient) Error(args ...any) {
	if err, ok := args[0].(error); ok && errors.Is(err, errStuck) {
		p.warned++
		return
	}
	p.World.Error(args...)
}

// faultyLeaf makes a leaf device with a faulty engine that works as yet.
func (b *blkWorld) faultyLeaf(name string) *faulty {
	e := &faulty{watched: &watched{Engine: soft.New("engine of "+name, 2), slots: map[int][]byte{}}}
	m := keyslot.New(e)
	b.engines, b.managers = append(b.engines, e.watched), append(b.managers, m)
	b.Leaf(name, dmtest.NewRAM(blkSize), m)
	return e
}

// Race 10: a key is in the engines of three devices and one of them fails to give it up,
// while its background retry comes, or while it is repaired and the eviction is asked
// again. All are tried; the receipt names the places and the error of each; success is
// said when the key is nowhere and not before; until then nobody is served with it
// (invariants 51, 53 and 55). What survives a crash is only what the engines retain.
func TestDMRace10EvictWithAPartialFailure(t *testing.T) {
	for failing := range 3 {
		t.Run(fmt.Sprintf("device %d fails", failing), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"blkcrypto: asking holder", "keyslot: retrying", "blkcrypto: asked"},
				Outcomes: []string{"failed", "done at once"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					var engines []*faulty
					for i := range 3 {
						engines = append(engines, b.faultyLeaf(fmt.Sprint("d", i)))
					}
					vol := b.Map("vol", "0 8 linear d0 0\n8 8 linear d1 0\n16 8 linear d2 0")
					k := b.key("k", xts4k, 9)
					for i := range int64(3) { // one by one: the key has its holders in that order
						b.write(vol, k, i*4096, block4k)
					}
					engines[failing].broken.Store(true)
					w.Go("evict", func() {
						r, err := k.Evict(w.Ctx)
						if len(r.Places) != 3 {
							w.Errorf("the receipt has %d places, want 3: %v", len(r.Places), r)
						}
						failed := 0
						for _, p := range r.Places {
							if p.Err != nil {
								failed++
								if !errors.Is(p.Err, errStuck) {
									w.Errorf("%s: %v", p.Holder, p.Err)
								}
							}
						}
						if err == nil {
							w.Outcome("done at once")
							b.wantGone(k)
						} else {
							w.Outcome("failed")
							if failed != 1 || !errors.Is(err, errStuck) {
								w.Errorf("%d places failed, want 1; %v", failed, err)
							}
							for i, e := range engines {
								if i != failing && e.has(k.bytes) {
									w.Errorf("device %d was not asked, or lost the key in vain (invariant 53)", i)
								}
							}
						}
						if b.write(vol, k, 0, block4k, blkcrypto.ErrKeyEvicted) {
							w.Error("served with a key whose eviction has begun (invariant 53)")
						}
					})
					w.Go("repair", func() {
						engines[failing].broken.Store(false)
						w.Sleep(2 * time.Second) // the retry comes, if one is due
					})
					w.Check(func() {
						b.evict(k) // again
						b.wantGone(k)
						for i := range 3 {
							if st := b.Device(fmt.Sprint("d", i)).Engine().Stats(); st.Quarantined != 0 {
								w.Errorf("device %d has %d slots in quarantine (invariant 54)", i, st.Quarantined)
							}
						}
					})
				},
			})
		})
	}
}

// Race 10 with the device removed while the key is still to be evicted from its engine,
// which does not answer. The removal closes the disk and tells of what is left; it does
// not make the eviction a success: that is one when the engine has come back and has
// been asked (invariants 51 and 53).
func TestDMRace10DeviceIsRemovedWithAnEvictionPending(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keyslot: retrying", "keyslot: emptied"},
		Outcomes: []string{"pending", "done", "told"},
		World: func(w *interleave.World) {
			tb := &patient{World: w}
			b := &blkWorld{World: dmtest.NewWithFallback(tb, 2), w: w}
			e := b.faultyLeaf("a")
			h := b.Handle("a")
			k := b.key("k", xts4k, 9)
			b.write(h, k, 0, block4k)
			if err := h.Close(); err != nil {
				w.Fatal(err)
			}
			e.broken.Store(true)
			evict := func() {
				switch _, err := k.Evict(w.Ctx); {
				case err == nil:
					w.Outcome("done")
					b.wantGone(k)
				case errors.Is(err, errStuck):
					w.Outcome("pending")
				default:
					w.Errorf("evict: %v", err)
				}
			}
			w.Go("evict", func() {
				evict()
				w.At("between evictions")
				evict()
			})
			w.Go("repair", func() {
				w.Sleep(1500 * time.Millisecond) // a retry comes, if one is due
				e.broken.Store(false)
			})
			w.Go("remove", func() {
				if err := b.Device("a").Remove(w.Ctx, dm.RemoveOptions{}); err != nil {
					w.Errorf("remove: %v", err)
				}
				if tb.warned > 0 {
					w.Outcome("told")
				} else if e.has(k.bytes) {
					w.Error("the device is removed, its engine has the key, and nobody was told")
				}
			})
			w.Check(func() {
				b.evict(k)
				b.wantGone(k)
			})
		},
	})
}

// Race 11, two evictions of one key at once, through two stacks that share a device, and
// of the key as a whole: all succeed, the key is nowhere, and each receipt is true
// (invariants 51 and 55).
func TestDMRace11TwoStacksEvictOneKey(t *testing.T) {
	for name, c := range map[string]struct {
		points     []string
		one, other func(b *blkWorld, k blkKey)
	}{
		"both from their device": {
			[]string{"dm: evicting beneath", "keyslot: leaving", "keyslot: granted", "keyslot: emptying", "keyslot: left"},
			func(b *blkWorld, k blkKey) { b.evictFrom("one", k) },
			func(b *blkWorld, k blkKey) { b.evictFrom("two", k) },
		},
		"one the key itself": {
			[]string{"blkcrypto: dead", "keyslot: leaving", "keyslot: granted", "keyslot: emptying", "dm: evicting beneath"},
			func(b *blkWorld, k blkKey) { b.evict(k) },
			func(b *blkWorld, k blkKey) { b.evictFrom("two", k) },
		},
		"both the key itself": {
			[]string{"blkcrypto: closed", "blkcrypto: dead", "keyslot: emptying", "blkcrypto: asked"},
			func(b *blkWorld, k blkKey) { b.evict(k) },
			func(b *blkWorld, k blkKey) { b.evict(k) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				b.disks("a")
				one, two := b.Map("one", onto("a")), b.Map("two", onto("a"))
				k, theirs := b.key("k", xts4k, 9), b.key("theirs", xts4k, 10)
				for _, dev := range []block.Device{one, two} {
					b.write(dev, k, 0, block4k)
					b.write(dev, theirs, 0, block4k)
				}
				w.Go("one", func() { c.one(b, k); b.wantGone(k) })
				w.Go("two", func() { c.other(b, k); b.wantGone(k) })
				w.Check(func() {
					b.wantIn(theirs, map[string]bool{"a": true})
					b.evict(k)
					b.wantGone(k)
				})
			}})
		})
	}
}

// Race 11, eviction against a key with equal bytes: they are two keys. The new one is
// served from the first moment, in a slot of its own, and no end of the old one's
// eviction takes it away (invariants 11 and 56).
func TestDMRace11EvictAgainstEqualBytes(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points: []string{"blkcrypto: dead", "keyslot: leaving", "keyslot: emptying", "keyslot: left", "keyslot: missed", "keyslot: programming"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			top, d := b.slotted(2)
			old := b.key("k", xts4k, 9)
			b.write(top, old, 0, block4k)
			resident := func(k blkKey) bool {
				for _, r := range b.managers[0].Residents() {
					if r.ID == k.ID() {
						return true
					}
				}
				return false
			}
			w.Go("evict", func() {
				b.evict(old)
				if resident(old) {
					w.Error("evicted, and in a slot (invariant 51)")
				}
			})
			w.Go("add", func() {
				next := b.key("k", xts4k, 9)
				if next.ID() == old.ID() {
					w.Error("two keys have one number (invariant 11)")
				}
				b.write(top, next, 4096, block4k)
				b.wantMedium(d, next, 4096, block4k)
				w.Check(func() {
					if !resident(next) || resident(old) {
						w.Errorf("in the end the new key is resident: %v, the old one: %v (invariant 56)", resident(next), resident(old))
					}
					programs := b.managers[0].Stats().Programs
					b.write(top, next, 8192, block4k)
					if b.managers[0].Stats().Programs != programs {
						w.Error("the new key had to be programmed again")
					}
				})
			})
		},
	})
}
