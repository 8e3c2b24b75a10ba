//go:build invariants || race

package dm_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// Races 20 and 21 of dm-fscrypt.md, section 15: removal, and events.

// Race 20: the last close of a device whose removal is deferred, while somebody opens it
// again and the removal is cancelled. A cancellation that succeeds is the end of it; one
// that comes too late says so, and then the device is gone, once. Whoever has it open
// is served until he closes it (invariant 33).
func TestDMRace20LastCloseAgainstOpenAndCancel(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: last close", "dm: removing", "dm: discarding"},
		Outcomes: []string{"cancelled", "too late", "opened", "open refused"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			disk := b.disk("a", nil)
			gone := 0
			m := dm.New("vol", dm.Options{
				Warn: func(_ *dm.Mapped, err error) { w.Errorf("warned: %v", err) },
				Gone: func(*dm.Mapped) { gone++ },
			})
			if err := m.Reload(w.Ctx, b.Table(onto("a")), dm.SuspendOptions{}); err != nil {
				w.Fatal(err)
			}
			h, err := m.Open("the test")
			if err != nil {
				w.Fatal(err)
			}
			if err := m.Remove(w.Ctx, dm.RemoveOptions{Deferred: true}); err != nil {
				w.Fatal(err)
			}
			cancelled := false
			w.Go("close", func() {
				if err := h.Close(); err != nil {
					w.Errorf("close: %v", err)
				}
			})
			w.Go("open", func() {
				again, err := m.Open("somebody")
				if err != nil {
					w.Outcome("open refused")
					if !errors.Is(err, dm.ErrRemoved) {
						w.Errorf("open: %v", err)
					}
					return
				}
				w.Outcome("opened")
				w.At("opened")
				if gone != 0 {
					w.Error("removed while it is open (invariant 33)")
				}
				dmtest.Write(w, again, 0, block4k)
				if err := again.Close(); err != nil {
					w.Errorf("close: %v", err)
				}
			})
			w.Go("cancel", func() {
				switch err := m.CancelDeferred(); {
				case err == nil:
					cancelled = true
					w.Outcome("cancelled")
				case errors.Is(err, dm.ErrRemoved):
					w.Outcome("too late")
				default:
					w.Errorf("cancel: %v", err)
				}
			})
			w.Check(func() {
				if want := map[bool]int{true: 0, false: 1}[cancelled]; gone != want || disk.Closed() {
					w.Errorf("cancelled: %v; removed %d times, want %d (invariant 33)", cancelled, gone, want)
				}
				if _, err := m.Open("the test"); cancelled != (err == nil) {
					w.Errorf("cancelled: %v; open in the end: %v", cancelled, err)
				}
				b.wantOpen("a", map[bool]int{true: 1, false: 0}[cancelled])
			})
		},
	})
}

// Race 20: a removal that is deferred, one that is not, and an open. Whatever the order,
// who asked for a deferred removal and was told that it is, or was not told otherwise,
// gets it at the last close: the other one's refusal does not take it back.
func TestDMRace20TwoRemovals(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: removing", "dm: last close"},
		Outcomes: []string{"deferred", "busy", "removed", "gone already", "open refused"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disk("a", nil)
			gone := 0
			m := dm.New("vol", dm.Options{
				Warn: func(_ *dm.Mapped, err error) { w.Errorf("warned: %v", err) },
				Gone: func(*dm.Mapped) { gone++ },
			})
			if err := m.Reload(w.Ctx, b.Table(onto("a")), dm.SuspendOptions{}); err != nil {
				w.Fatal(err)
			}
			remove := func(deferred bool) {
				switch err := m.Remove(w.Ctx, dm.RemoveOptions{Deferred: deferred}); {
				case err == nil && !m.State().DeferredRemove:
					w.Outcome("removed")
				case err == nil && deferred:
					w.Outcome("deferred")
				case errors.Is(err, block.ErrBusy) && !deferred:
					w.Outcome("busy")
				case errors.Is(err, dm.ErrRemoved):
					w.Outcome("gone already")
				case err != nil:
					w.Errorf("remove, deferred %v: %v", deferred, err)
				}
			}
			w.Go("deferred", func() { remove(true) })
			w.Go("at once", func() { remove(false) })
			w.Go("user", func() {
				h, err := m.Open("the user")
				if err != nil {
					w.Outcome("open refused")
					return
				}
				w.At("opened")
				dmtest.Write(w, h, 0, block4k)
				if err := h.Close(); err != nil {
					w.Errorf("close: %v", err)
				}
			})
			w.Check(func() {
				if gone != 1 {
					w.Errorf("removed %d times, want once", gone)
				}
				b.wantOpen("a", 0)
			})
		},
	})
}

// Race 20, removal against messages and somebody who waits for an event: a message gets
// its answer or is told that there is no table, and the removal is an event that wakes
// (invariant 32).
func TestDMRace20RemoveAgainstMessageAndWait(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: removing", "dm: discarding", "dm: waiting for an event"},
		Outcomes: []string{"answered", "no table"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disk("a", nil)
			if err := b.Map("vol", "0 128 dust a 0 512").Close(); err != nil {
				w.Fatal(err)
			}
			m := b.Device("vol")
			n := m.Event()
			w.Go("remove", func() {
				if err := m.Remove(w.Ctx, dm.RemoveOptions{}); err != nil {
					w.Errorf("remove: %v", err)
				}
			})
			w.Go("message", func() {
				switch answer, err := m.Message(w.Ctx, 0, []string{"countbadblocks"}); {
				case err == nil && answer != "":
					w.Outcome("answered")
				case errors.Is(err, dm.ErrNoTable):
					w.Outcome("no table")
				default:
					w.Errorf("message: %q, %v", answer, err)
				}
			})
			w.Go("wait", func() {
				got, err := m.Wait(w.Ctx, n)
				if err != nil || got != n+1 {
					w.Errorf("wait: event %d, %v; want %d (invariant 32)", got, err, n+1)
				}
				if m.State().Live {
					w.Error("told of a removal that is not done")
				}
			})
			w.Check(func() { b.wantOpen("a", 0) })
		},
	})
}

// Race 21: events between the moment when somebody learns the number and the moment
// when he begins to wait: a rename, another table, the removal. He hears of each, in one
// piece or together; what he is told of is there when he looks (invariant 32).
func TestDMRace21WaitAgainstEvents(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: waiting for an event", "dm: swapped", "dm: removing"},
		Outcomes: []string{"woken", "woken once"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disk("a", nil)
			b.disk("b", nil)
			if err := b.Map("vol", onto("a")).Close(); err != nil {
				w.Fatal(err)
			}
			m := b.Device("vol")
			n := m.Event()
			first := n
			table := b.Table(onto("b"))
			w.Go("control", func() {
				m.Rename("other")
				w.At("renamed")
				if err := m.Reload(w.Ctx, table, dm.SuspendOptions{}); err != nil {
					w.Errorf("reload: %v", err)
				}
				w.At("reloaded")
				if err := m.Remove(w.Ctx, dm.RemoveOptions{}); err != nil {
					w.Errorf("remove: %v", err)
				}
			})
			w.Go("wait", func() {
				for wakes := 1; ; wakes++ {
					got, err := m.Wait(w.Ctx, n)
					if err != nil || got <= n || got > first+3 {
						w.Errorf("wait for other than %d: %d, %v (invariant 32)", n, got, err)
						return
					}
					n = got
					st := m.State()
					if st.Name != "other" || n == first+3 && st.Live {
						w.Errorf("event %d of %d: %+v", n-first, 3, st)
					}
					if n >= first+2 && st.Live && m.TableText(false, dm.StatusTable) != onto("b")+"\n" {
						w.Error("told of another table before it is live")
					}
					if n == first+3 {
						if wakes == 1 {
							w.Outcome("woken once")
						} else {
							w.Outcome("woken")
						}
						return
					}
					w.At("told")
				}
			})
			w.Check(func() {
				if got := m.Event(); got != first+3 {
					w.Errorf("%d events, want 3", got-first)
				}
				ctx, cancel := context.WithCancel(w.Ctx)
				cancel()
				if got, err := m.Wait(ctx, first+3); err == nil {
					w.Errorf("a wait for what has been seen ended with %d", got)
				}
				if got, err := m.Wait(ctx, first+9); err != nil || got != first+3 {
					w.Errorf("a wait for an event that is yet to come: %d, %v", got, err)
				}
			})
		},
	})
}

// Race 21 where the event is a target's: a bad leg is found while somebody is about to
// wait, and the table is replaced: it wakes, of whichever table it was.
func TestDMRace21WaitAgainstTargetsEvents(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: waiting for an event", "dm: swapped", "mirror: a leg has failed"},
		Outcomes: []string{"leg failed", "other table"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			broken := b.disk("a", nil)
			b.disk("b", nil)
			var events []dm.Event
			m := dm.New("vol", dm.Options{Event: func(_ *dm.Mapped, e dm.Event) { events = append(events, e) }})
			if err := m.Reload(w.Ctx, b.Table("0 128 mirror core 2 16 nosync 2 a 0 b 0 1 handle_errors"), dm.SuspendOptions{}); err != nil {
				w.Fatal(err)
			}
			table := b.Table(onto("b"))
			n, err := m.Wait(w.Ctx, 1) // until it is in sync
			if err != nil {
				w.Fatal(err)
			}
			events = nil
			failed := false
			broken.Before = func(_ context.Context, r block.Request) error {
				if r.Op == block.OpWrite {
					failed = true
					return errors.New("the leg is broken")
				}
				return nil
			}
			w.Go("write", func() {
				if err := m.Do(w.Ctx, block.Request{Op: block.OpWrite, Len: 4096, Data: block.Bytes(bytes.Clone(block4k))}); err != nil {
					w.Errorf("write: %v", err)
				}
			})
			w.Go("reload", func() {
				if err := m.Reload(w.Ctx, table, dm.SuspendOptions{}); err != nil {
					w.Errorf("reload: %v", err)
				}
			})
			w.Go("wait", func() {
				for seen := n; ; {
					got, err := m.Wait(w.Ctx, seen)
					if err != nil || got == seen {
						w.Errorf("wait: %d, %v", got, err)
						return
					}
					seen = got
					if m.TableText(false, dm.StatusTable) == onto("b")+"\n" {
						return
					}
				}
			})
			w.Check(func() {
				of := map[dm.EventKind]int{}
				for _, e := range events {
					of[e.Kind]++
				}
				if failed {
					w.Outcome("leg failed")
				} else {
					w.Outcome("other table")
				}
				if told := of[dm.EventTarget] > 0; told != failed || of[dm.EventReloaded] != 1 || events[len(events)-1].Number != m.Event() {
					w.Errorf("a leg has failed: %v; events: %v", failed, events)
				}
			})
		},
	})
}
