//go:build invariants || race

package dm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// Race 16 of dm-fscrypt.md, section 15: suspensions that are interrupted.

// writePlain writes a block without a context, past any handle, so that the device may
// be removed meanwhile.
func (b *blkWorld) writePlain(name string) error {
	data := append([]byte(nil), block4k...)
	return b.Device(name).Do(b.w.Ctx, block.Request{Op: block.OpWrite, Len: int64(len(data)), Data: block.Bytes(data)})
}

// Race 16: a suspension is interrupted at each of its steps: while it waits for another
// change, for a request in progress, in its flush. Then everything is as it was before
// (invariant 22), and the request that came meanwhile is served once (invariant 19); a
// second suspension, a resume and a removal that race it do what they say, as if they
// had come before or after. After a suspension that succeeded nothing gets to the disk
// (invariant 18).
func TestDMRace16SuspendInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		points   []string
		outcomes []string
		other    func(b *blkWorld, vol *dm.Mapped)
	}{
		"alone": {
			[]string{"block: entering", "block: closed", "dm: admitted", "dm: suspended"},
			[]string{"suspended", "interrupted", "served"}, nil,
		},
		"a second suspension": {
			[]string{"block: closed", "dm: suspended"},
			[]string{"suspended", "interrupted", "served"},
			func(b *blkWorld, vol *dm.Mapped) {
				if err := vol.Suspend(b.w.Ctx, dm.SuspendOptions{NoFlush: true}); err != nil {
					b.w.Errorf("second suspension: %v", err)
				}
				b.w.At("suspended again")
				if err := vol.Resume(b.w.Ctx); err != nil {
					b.w.Errorf("resume after the second suspension: %v", err)
				}
			},
		},
		"a resume": {
			[]string{"block: closed", "dm: suspended"},
			[]string{"suspended", "interrupted", "served"},
			func(b *blkWorld, vol *dm.Mapped) {
				if err := vol.Resume(b.w.Ctx); err != nil {
					b.w.Errorf("resume: %v", err)
				}
			},
		},
		"a removal": {
			[]string{"block: closed", "dm: removing"},
			[]string{"suspended", "interrupted", "removed first", "served", "closed"},
			func(b *blkWorld, vol *dm.Mapped) {
				if err := vol.Remove(b.w.Ctx, dm.RemoveOptions{}); err != nil {
					b.w.Errorf("remove: %v", err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, Outcomes: c.outcomes, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				d := dmtest.NewRAM(blkSize)
				b.Leaf("a", d, nil)
				d.Before = func(ctx context.Context, r block.Request) error {
					if r.Op == block.OpFlush {
						w.At("the flush")
						return context.Cause(ctx)
					}
					return nil
				}
				if err := b.Map("vol", "0 128 linear a 0").Close(); err != nil {
					w.Fatal(err)
				}
				vol := b.Device("vol")
				ctx, cancel := context.WithCancel(w.Ctx)
				w.Go("suspend", func() {
					err := vol.Suspend(ctx, dm.SuspendOptions{})
					switch {
					case err == nil:
						w.Outcome("suspended")
						if c.other == nil {
							before := d.Count(block.OpWrite)
							w.At("suspended")
							if n := d.Count(block.OpWrite) - before; n != 0 || d.Inside() != 0 || !vol.State().Suspended {
								w.Errorf("suspended: %d writes came to the disk and %d are there (invariant 18)", n, d.Inside())
							}
						}
						if err := vol.Resume(w.Ctx); err != nil && (name != "a removal" || !errors.Is(err, dm.ErrRemoved)) {
							w.Errorf("resume: %v", err)
						}
					case errors.Is(err, context.Canceled):
						w.Outcome("interrupted")
						if c.other == nil && vol.State().Suspended {
							w.Error("the suspension was interrupted and the device is suspended (invariant 22)")
						}
					case name == "a removal" && errors.Is(err, dm.ErrRemoved):
						w.Outcome("removed first")
					default:
						w.Errorf("suspend: %v", err)
					}
				})
				w.Go("interrupt", cancel)
				served := int64(0)
				w.Go("write", func() {
					err := b.writePlain("vol")
					switch {
					case err == nil:
						w.Outcome("served")
						served = 1
					case name == "a removal" && errors.Is(err, block.ErrClosed):
						w.Outcome("closed")
					default:
						w.Errorf("write: %v (invariant 17)", err)
					}
				})
				if c.other != nil {
					w.Go("other", func() { c.other(b, vol) })
				}
				w.Check(func() {
					if n := d.Count(block.OpWrite); n != served {
						w.Errorf("%d writes came to the disk and %d were served (invariant 19)", n, served)
					}
					if st := vol.State(); st.Suspended || st.Inside != 0 || st.Waiting != 0 {
						w.Errorf("in the end: suspended %v, %d inside, %d waiting", st.Suspended, st.Inside, st.Waiting)
					}
				})
			}})
		})
	}
}

// Race 16 with the removal of a suspended device that is interrupted: the device is
// suspended as it was, the request that came meanwhile waits on, and a target that has
// work of its own, the copying of a mirror, does not begin it (invariants 18 and 22).
func TestDMRace16RemovalOfASuspendedDeviceInterrupted(t *testing.T) {
	for name, table := range map[string]string{"linear": onto("a"), "mirror": "0 128 mirror core 1 16 2 a 0 b 0"} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"block: entering", "block: closed", "dm: removing", "dm: admitted"},
				Outcomes: []string{"removed", "interrupted"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					d := b.disk("a", nil)
					b.disk("b", nil)
					if err := b.Map("vol", table).Close(); err != nil {
						w.Fatal(err)
					}
					vol := b.Device("vol")
					if err := vol.Suspend(w.Ctx, dm.SuspendOptions{}); err != nil {
						w.Fatal(err)
					}
					read := d.Count(block.OpRead)
					ctx, cancel := context.WithCancel(w.Ctx)
					w.Go("interrupt", cancel)
					w.Go("write", func() {
						if err := b.writePlain("vol"); err != nil && !errors.Is(err, block.ErrClosed) {
							w.Errorf("write: %v", err)
						}
					})
					w.Go("remove", func() {
						err := vol.Remove(ctx, dm.RemoveOptions{})
						if err == nil {
							w.Outcome("removed")
							return
						}
						w.Outcome("interrupted")
						if !errors.Is(err, context.Canceled) {
							w.Errorf("remove: %v", err)
						}
						w.Sleep(time.Second)
						if writes, reads := d.Count(block.OpWrite), d.Count(block.OpRead)-read; writes+reads != 0 || !vol.State().Suspended {
							w.Errorf("the removal was interrupted: %d writes and %d reads came to the disk of a suspended device (invariant 18)", writes, reads)
						}
						if name == "linear" {
							if err := vol.Resume(w.Ctx); err != nil {
								w.Errorf("resume: %v", err)
							}
							return
						}
						if err := vol.Remove(w.Ctx, dm.RemoveOptions{}); err != nil {
							w.Errorf("remove again: %v", err)
						}
					})
				},
			})
		})
	}
}
