//go:build invariants || race

package dm_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// Races 4 and 5 of dm-fscrypt.md, section 15: a device and what it stands on change at
// the same time.

// wantTrue checks that what a device advertises is what its live table and those
// beneath add up to (invariants 36, 42 and 44).
func (b *blkWorld) wantTrue(names ...string) {
	for _, name := range names {
		m := b.Device(name)
		if says, serves := m.Info().Crypto, dm.ServedNow(m); says != serves || m.Keyslots().Profile() != serves {
			b.w.Errorf("%s advertises %v, and its table serves %v (invariant 44)", name, says, serves)
		}
	}
}

// Race 4: between load and resume of a table its child grows, or shrinks, in what it
// serves (gap U3: Linux publishes what was true at the load). What is advertised in the
// end is true, and a request is served whichever was there when it came.
func TestDMRace04ChildChangesProfileBetweenLoadAndResume(t *testing.T) {
	for _, grow := range []bool{true, false} {
		name := map[bool]string{true: "grows", false: "shrinks"}[grow]
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"dm: rechecked", "dm: swapping", "dm: swapped", "dm: routed"},
				Outcomes: []string{"engine", "software"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					medium := dmtest.NewRAM(blkSize)
					b.Leaf("plain", medium, nil)
					b.Leaf("engine", shared{medium}, b.engine())
					from, to := "0 128 linear engine 0", "0 128 linear plain 0"
					if grow {
						from, to = to, from
					}
					b.Map("mid", from)
					top := b.Map("top", "0 128 linear plain 0")
					k := b.key("k", xts4k, 9)
					if err := b.Device("top").Load(w.Ctx, b.Table("0 128 linear mid 0")); err != nil {
						w.Fatal(err)
					}
					w.Go("parent", func() {
						if err := b.Device("top").Resume(w.Ctx); err != nil {
							w.Errorf("resume: %v", err)
						}
						b.write(top, k, 0, block4k)
						if engine, _ := k.ServedBy(); engine == 1 {
							w.Outcome("engine")
						} else {
							w.Outcome("software")
						}
					})
					w.Go("child", func() { b.reload("mid", to) })
					w.Check(func() {
						b.wantTrue("mid", "top")
						b.wantMedium(medium, k, 0, block4k)
						if p := top.Info().Crypto; p.Supports(xts4k) != grow {
							w.Errorf("in the end: %v", p)
						}
					})
				},
			})
		})
	}
}

// Race 4 with a child that becomes too small: if that was done when the swap came, the
// resume is refused and nothing has changed (invariant 26); if it comes after the swap,
// what lies beyond its end is out of range and nothing else is (invariant 27).
func TestDMRace04ChildShrinksBetweenLoadAndResume(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: rechecked", "dm: suspended", "dm: swapping", "dm: swapped"},
		Outcomes: []string{"refused", "resumed"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			old, next := b.disk("a", nil), b.disk("b", nil)
			b.Map("mid", "0 128 linear b 0")
			top := b.Map("top", "0 128 linear a 0")
			if err := b.Device("top").Load(w.Ctx, b.Table("0 128 linear mid 0")); err != nil {
				w.Fatal(err)
			}
			small := false
			resumed := false
			w.Go("parent", func() {
				err := b.Device("top").Resume(w.Ctx)
				switch {
				case err == nil:
					w.Outcome("resumed")
					resumed = true
				case strings.Contains(err.Error(), "has shrunk"):
					w.Outcome("refused")
				default:
					w.Errorf("resume: %v", err)
				}
			})
			w.Go("child", func() { small = b.reload("mid", "0 64 linear b 0") })
			old.Before = func(_ context.Context, r block.Request) error {
				// The flush of the suspension of top.
				smallThen := small
				w.Check(func() {
					if smallThen && resumed {
						w.Error("the child was too small before the swap, and the table is live (invariant 26)")
					}
				})
				return nil
			}
			w.Check(func() {
				dmtest.Write(w, top, 0, block4k)
				if !resumed {
					b.wantText("top", false, "0 128 linear a 0")
					b.wantText("top", true, "0 128 linear mid 0")
					if old.Count(block.OpWrite) != 1 {
						w.Error("the old table does not serve")
					}
					return
				}
				if next.Count(block.OpWrite) != 1 {
					w.Error("the new table does not serve")
				}
				err := top.Do(w.Ctx, block.Request{Op: block.OpWrite, Off: 48 << 10, Len: 4096, Data: block.Bytes(make([]byte, 4096))})
				if !errors.Is(err, block.ErrOutOfRange) || next.Count(block.OpWrite) != 1 {
					w.Errorf("beyond the end: %v, want %v", err, block.ErrOutOfRange)
				}
			})
		},
	})
}

// Race 4 with a child that is to be removed: a table that is loaded holds it, so the
// removal comes before the table is built or after it is given up, and never between.
func TestDMRace04ChildIsRemovedBetweenLoadAndResume(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: removing", "dm: swapped", "dm: discarding"},
		Outcomes: []string{"removed first", "busy"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			disk := b.disk("a", b.engine())
			b.disk("b", nil)
			if err := b.Map("mid", "0 128 linear a 0").Close(); err != nil {
				w.Fatal(err)
			}
			top := b.Map("top", "0 128 linear b 0")
			removed := false
			w.Go("parent", func() {
				table, err := b.Parse("0 128 linear mid 0")
				if err != nil {
					if !errors.Is(err, dm.ErrRemoved) {
						w.Errorf("parse: %v", err)
					}
					w.Outcome("removed first")
					return
				}
				w.At("built")
				if err := b.Device("top").Load(w.Ctx, table); err != nil {
					w.Errorf("load: %v", err)
				}
				w.At("loaded")
				if err := b.Device("top").Resume(w.Ctx); err != nil {
					w.Errorf("resume: %v", err)
				}
				dmtest.Write(w, top, 0, block4k)
				if removed || disk.Count(block.OpWrite) != 1 {
					w.Errorf("removed beneath a table: %v; %d writes came to its disk", removed, disk.Count(block.OpWrite))
				}
			})
			w.Go("child", func() {
				err := b.Device("mid").Remove(w.Ctx, dm.RemoveOptions{})
				switch {
				case err == nil:
					removed = true
				case errors.Is(err, block.ErrBusy):
					w.Outcome("busy")
				default:
					w.Errorf("remove: %v", err)
				}
			})
		},
	})
}

// Race 5: a profile two levels up is read while one at the bottom changes: the readers
// are TestRaceBlk17... Here somebody on the way refuses: a wrapped key that was started
// in the middle or on top. The reload at the bottom then changes nothing at any level,
// or, if the key was started later or has been stopped, everything at all of them
// (invariants 38, 42 and 43).
func TestDMRace05AbortAtAnyLevelChangesNoLevel(t *testing.T) {
	for _, level := range []string{"low", "mid", "top"} {
		t.Run("key on "+level, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"dm: swapping", "dm: swapped"},
				Outcomes: []string{"reload refused", "reloaded", "start refused"},
				World: func(w *interleave.World) {
					p := newRacePhone(w, "ufs0", "plain")
					p.Map("low", onto("ufs0"))
					p.Map("mid", onto("low"))
					p.Map("top", onto("mid"))
					k := p.raceKey(w)
					levels := []string{"top", "mid", "low"}
					events := map[string]uint64{}
					old := map[string]bool{}
					for _, name := range levels {
						events[name] = p.Device(name).Event()
					}
					w.Go("reload", func() {
						err := p.tryReload(w, "low", "plain", dm.SuspendOptions{})
						for _, name := range levels {
							old[name] = err != nil
							changed := p.Device(name).Event() != events[name]
							if p.serves(name, k) != old[name] || changed == old[name] {
								w.Errorf("reload: %v; %s serves the key: %v, events: %v (invariant 43)", err, name, p.serves(name, k), changed)
							}
						}
						switch {
						case err == nil:
							w.Outcome("reloaded")
						case errors.Is(err, dm.ErrStrands) && strings.Contains(err.Error(), level):
							w.Outcome("reload refused")
						default:
							w.Errorf("reload: %v", err)
						}
					})
					w.Go("user", func() {
						dev := p.Device(level)
						stop, err := dev.StartKey(k, "the test")
						if err != nil {
							w.Outcome("start refused")
							if !errors.Is(err, block.ErrNoCrypto) {
								w.Errorf("start: %v", err)
							}
							return
						}
						w.At("started")
						if err := dev.Do(w.Ctx, withKey(block.OpWrite, k, make([]byte, 4096))); err != nil {
							w.Errorf("write with a key that was started: %v (invariant 38)", err)
						}
						stop()
					})
					w.Go("reader", func() {
						gone := false
						for i, name := range levels { // what is gone above is gone below
							if i > 0 {
								w.At("between levels")
							}
							serves := p.serves(name, k)
							if gone && serves {
								w.Errorf("%s serves the key and a device above it does not (invariant 42)", name)
							}
							gone = !serves
						}
					})
				},
			})
		})
	}
}
