//go:build invariants || race

package dm_test

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// Races 6 and 7 of dm-fscrypt.md, section 15: evictions.

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

// An asking engine calls a test before it empties a slot.
type asking struct {
	*watched
	evicting func()
}

func (e *asking) Evict(slot int) error {
	e.evicting()
	return e.watched.Evict(slot)
}

// Race 6 with a request that waits for the end of the reload: the device goes on before
// the engine that is dropped is asked to give up its keys, which may take long.
func TestDMRace06RequestsDoNotWaitForTheEviction(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"block: opened", "dm: suspended", "dm: swapped", "dm: retiring"},
		Outcomes: []string{"waits", "evicted"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			e := &asking{watched: &watched{Engine: soft.New("cpu", 2), slots: map[int][]byte{}}}
			m := keyslot.New(e)
			b.engines, b.managers = append(b.engines, e.watched), append(b.managers, m)
			b.disk("a", m)
			b.disks("b")
			vol := b.Map("vol", onto("a"))
			k := b.key("k", xts4k, 9)
			b.write(vol, k, 0, block4k)
			e.evicting = func() {
				if b.Device("vol").State().Suspended {
					w.Error("requests are kept back for the time that an engine takes to evict")
				}
				w.Outcome("evicted")
				w.At("evicting")
			}
			w.Go("reload", func() { b.reload("vol", onto("b")) })
			w.Go("write", func() {
				if b.Device("vol").State().Suspended {
					w.Outcome("waits")
				}
				b.write(vol, k, 4096, block4k)
			})
			w.Check(func() { b.wantIn(k, map[string]bool{"a": false}); e.evicting = func() {} })
		},
	})
}

// Race 6 with two stacks over one device, which both leave it at once, while a request
// with the key is on its way through one of them: the last one takes the key out, the
// first one leaves it where the other needs it (invariant 59), and the request is
// served.
func TestDMRace06TwoStacksLeaveADevice(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points: []string{"dm: swapped", "dm: retiring"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			disks := b.disks("a", "b")
			one, two := b.Map("one", "0 64 linear a 0"), b.Map("two", "0 64 linear a 64")
			k := b.key("k", xts4k, 9)
			b.write(one, k, 0, block4k)
			b.write(two, k, 0, block4k)
			programs := b.Device("a").Engine().Stats().Programs
			w.Go("one", func() {
				b.reload("one", "0 64 linear b 0")
				if in := b.has("a", k); !in && b.Device("two").TableText(false, dm.StatusTable) == "0 64 linear a 64\n" {
					w.Error("the key is gone from the engine of a device that another stack uses with it (invariant 59)")
				}
			})
			w.Go("two", func() { b.reload("two", "0 64 linear b 64") })
			w.Go("write", func() { b.write(two, k, 4096, block4k) })
			w.Check(func() {
				b.wantIn(k, map[string]bool{"a": false})
				if n := b.Device("a").Engine().Stats().Programs; n != programs {
					w.Errorf("the key was programmed anew on the device that both left, %d times", n-programs)
				}
				off := int64(4096)
				if disks["a"].Count(block.OpWrite) == 3 {
					b.wantMediumAt(disks["a"], k, 32<<10+off, off, block4k)
				} else {
					b.wantMediumAt(disks["b"], k, 32<<10+off, off, block4k)
				}
			})
		},
	})
}

// wantMediumAt is wantMedium for what lies elsewhere on the medium than on the device
// whose data units were counted.
func (b *blkWorld) wantMediumAt(d *dmtest.RAM, k blkKey, at, off int64, plain []byte) {
	want := encrypted(k.bytes, k.Config(), blkcrypto.DUN64(uint64(off)/4096), plain)
	if got := d.Bytes()[at:][:len(plain)]; !bytes.Equal(got, want) {
		b.w.Errorf("wrong bytes on the medium at %d (invariant 1)", at)
	}
}

// wantUnused checks that no request uses a key whose eviction has ended, also none that
// waits at a suspended device.
func (b *blkWorld) wantUnused(k blkKey) {
	if n := k.InUse(); n != 0 {
		b.w.Errorf("the eviction has ended and %d requests use the key (invariant 52)", n)
	}
}

// Race 7, evict against deferred I/O: requests wait at a suspended device when their key
// is evicted. The eviction waits for them, or says busy, as it was asked; by force they
// fail, with the one error that says so. None is served with a key that is gone
// (invariants 51 and 52).
func TestDMRace07EvictAgainstDeferredIO(t *testing.T) {
	for name, c := range map[string]struct {
		points   []string
		outcomes []string
		evict    func(b *blkWorld, k blkKey) (gone bool)
	}{
		"wait": {
			[]string{"block: entering", "block: opened", "blkcrypto: closed", "dm: admitted"},
			[]string{"served", "refused"},
			func(b *blkWorld, k blkKey) bool { b.evict(k); b.wantUnused(k); return true },
		},
		"if idle": {
			[]string{"block: entering", "block: opened", "blkcrypto: retired", "dm: admitted"},
			[]string{"served", "refused", "busy"},
			func(b *blkWorld, k blkKey) bool {
				inUse := k.InUse()
				_, err := k.EvictIdle(b.w.Ctx)
				if errors.Is(err, blkcrypto.ErrKeyBusy) {
					b.w.Outcome("busy")
					if inUse == 0 {
						b.w.Error("busy, and no request uses the key (invariant 52)")
					}
					return false
				}
				if err != nil {
					b.w.Errorf("evict if idle: %v", err)
				}
				b.wantUnused(k)
				return true
			},
		},
		"by force": {
			[]string{"block: entering", "block: opened", "blkcrypto: dead", "dm: admitted"},
			[]string{"served", "refused"},
			func(b *blkWorld, k blkKey) bool {
				if _, err := k.Revoke(b.w.Ctx); err != nil {
					b.w.Errorf("revoke: %v", err)
				}
				return true
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, Outcomes: c.outcomes, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				d := b.disk("a", b.engine())
				vol := b.Map("vol", onto("a"))
				k := b.key("k", xts4k, 9)
				b.write(vol, k, 8192, block4k)
				if err := b.Device("vol").Suspend(w.Ctx, dm.SuspendOptions{}); err != nil {
					w.Fatal(err)
				}
				var gone atomic.Bool
				w.Go("write", func() {
					served := b.write(vol, k, 0, block4k, blkcrypto.ErrKeyEvicted)
					if d.Count(block.OpWrite) == 2 != served {
						w.Errorf("served %v, and %d writes came to the disk", served, d.Count(block.OpWrite))
					}
					if served {
						w.Outcome("served")
						b.wantMedium(d, k, 0, block4k)
					} else {
						w.Outcome("refused")
					}
					if served && gone.Load() {
						w.Error("a request was served after the eviction of its key had ended (invariant 51)")
					}
				})
				w.Go("evict", func() {
					if c.evict(b, k) {
						gone.Store(true)
						b.wantGone(k)
					}
				})
				w.Go("resume", func() {
					if err := b.Device("vol").Resume(w.Ctx); err != nil {
						w.Errorf("resume: %v", err)
					}
				})
				w.Check(func() {
					if gone.Load() {
						b.wantGone(k)
					} else {
						b.write(vol, k, 4096, block4k) // refusing has changed nothing
					}
				})
			}})
		})
	}
}
