//go:build invariants || race

package dm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// Races 22 to 24, 27 and 28 of dm-fscrypt.md, section 15: engines, disks and data units
// that change under requests.

// Race 22: the engine of a suspended device is reset while a request waits, and its key
// is evicted or not. In one manager, reset against evict and program is R5 and R14 of
// blkcrypto.md (keyslot/racesreset_test.go). Here: the reset needs no request to end, a
// key that was evicted does not come back with it, and one that was not is in place when
// the request is let in (invariants 18 and 65).
func TestDMRace22EngineResetWhileSuspended(t *testing.T) {
	for _, whole := range []bool{false, true} {
		outcomes := map[bool][]string{false: {"served"}, true: {"served", "refused"}}[whole]
		t.Run(fmt.Sprint("the key goes for good: ", whole), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"keyslot: losing", "keyslot: leaving", "block: opened", "dm: suspended"},
				Outcomes: outcomes,
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					disk := b.disk("a", b.engine())
					vol := b.Map("vol", onto("a"))
					m := b.Device("vol")
					k, theirs := b.key("k", xts4k, 9), b.key("theirs", xts4k, 10)
					b.write(vol, theirs, 8192, block4k)
					b.write(vol, k, 4096, block4k)
					w.Go("write", func() {
						if b.write(vol, k, 0, block4k, blkcrypto.ErrKeyEvicted) {
							w.Outcome("served")
							b.wantMedium(disk, k, 0, block4k)
						} else {
							w.Outcome("refused")
						}
					})
					w.Go("reset", func() {
						if err := m.Suspend(w.Ctx, dm.SuspendOptions{}); err != nil {
							w.Errorf("suspend: %v", err)
						}
						slots := b.engines[0].slots
						if err := b.managers[0].Reset(func() { clear(slots) }); err != nil {
							w.Errorf("reset: %v", err)
						}
						if !b.engines[0].has(theirs.bytes) {
							w.Error("a key that nobody evicted is lost by the reset (invariant 65)")
						}
						if err := m.Resume(w.Ctx); err != nil {
							w.Errorf("resume: %v", err)
						}
					})
					w.Go("evict", func() {
						if whole {
							b.evict(k)
							b.wantGone(k)
						} else {
							b.evictFrom("vol", k)
						}
					})
					w.Check(func() {
						if whole {
							b.wantGone(k)
						}
						b.wantMedium(disk, theirs, 8192, block4k)
						programs := b.managers[0].Stats().Programs
						b.write(vol, theirs, 8192, block4k)
						if b.managers[0].Stats().Programs != programs {
							w.Error("a key that nobody evicted had to be programmed again")
						}
					})
				},
			})
		})
	}
}

// A stalling engine stops in its first transformation.
type stalling struct {
	*watched
	w       *interleave.World
	first   atomic.Bool
	stalled bool
}

func (e *stalling) Crypt(slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	if e.first.CompareAndSwap(true, false) {
		e.stalled = true
		e.w.At("stalled")
		e.stalled = false
	}
	return e.Engine.Crypt(slot, d, dun, dst, src)
}

// Race 23, beside R19 and R20 of blkcrypto.md (keyslot/racesover_test.go): a mirror of
// two disks, one behind an engine with one slot, writes with three keys, an engine and a
// disk that each do not answer for a while, and a suspension. Nobody who waits for a disk has
// the slot, so all come to their end as soon as the disk answers, and so does the
// suspension (invariants 18 and 60).
func TestDMRace23OneSlotThreeKeysAndAMirror(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Outcomes: []string{"beside one that stalls", "alone"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			e := &stalling{watched: &watched{Engine: soft.New("cpu", 1), slots: map[int][]byte{}}, w: w}
			e.first.Store(true)
			m := keyslot.New(e)
			b.engines, b.managers = append(b.engines, e.watched), append(b.managers, m)
			stalled, began := false, make(chan struct{})
			var first atomic.Bool
			first.Store(true)
			disks := map[string]*dmtest.RAM{"a": dmtest.NewRAM(blkSize), "b": dmtest.NewRAM(blkSize)}
			disks["b"].Before = func(_ context.Context, r block.Request) error {
				if r.Op == block.OpWrite && first.CompareAndSwap(true, false) {
					stalled = true
					close(began)
					w.At("stalled")
					stalled = false
				}
				return nil
			}
			b.Leaf("a", disks["a"], nil) // in software: the two legs of a write run side by side
			b.Leaf("b", disks["b"], m)
			vol := b.Map("vol", "0 128 mirror core 2 16 nosync 2 a 0 b 0")
			var keys []blkKey
			for i := range 3 {
				keys = append(keys, b.key(fmt.Sprint("k", i), xts4k, byte(9+i)))
			}
			for i, k := range keys {
				w.Go(k.Name(), func() {
					beside := stalled || e.stalled
					b.write(vol, k, int64(i)*8192, block4k)
					if beside {
						w.Outcome("beside one that stalls")
					} else {
						w.Outcome("alone")
					}
				})
			}
			w.Go("suspend", func() {
				<-began
				if err := vol.Suspend(w.Ctx, dm.SuspendOptions{NoFlush: true}); err != nil {
					w.Errorf("suspend: %v", err)
				}
				if n := disks["a"].Inside() + disks["b"].Inside(); n != 0 {
					w.Errorf("suspended with %d requests at the disks (invariant 18)", n)
				}
				if err := vol.Resume(w.Ctx); err != nil {
					w.Errorf("resume: %v", err)
				}
			})
			w.Check(func() {
				for _, d := range disks {
					for i, k := range keys {
						b.wantMedium(d, k, int64(i)*8192, block4k)
					}
				}
				if st := m.Stats(); st.Busy != 0 {
					w.Errorf("%d slots in use in the end", st.Busy)
				}
				if err := errors.Join(vol.Close(), vol.Mapped.Remove(w.Ctx, dm.RemoveOptions{})); err != nil {
					w.Error(err)
				}
			})
		},
	})
}

// A mortal disk dies, and what it does then is an error, until it is back. It remembers
// every write that came to it.
type mortal struct {
	*dmtest.RAM
	dead bool
	came [][]byte
}

var errDead = errors.New("the disk does not answer")

// mortalLeaf makes a leaf device with an engine of two slots.
func (b *blkWorld) mortalLeaf(name string) *mortal {
	d := &mortal{RAM: dmtest.NewRAM(blkSize)}
	d.Before = func(_ context.Context, r block.Request) error {
		if r.Op == block.OpWrite {
			got := make([]byte, r.Len)
			r.Data.CopyTo(got)
			d.came = append(d.came, got)
			b.w.At("at the disk")
		}
		if d.dead {
			return errDead
		}
		return nil
	}
	b.Leaf(name, d, b.engine())
	return d
}

// Race 24: a disk dies while requests with keys are on their way, its engine loses its
// keys with it, and both come back. Engine and connection are two things here: whoever
// brings the disk back has the engine reset before he lets requests in again, and the
// request that failed is sent again by its sender. Whatever comes to the disk at any
// time is ciphertext, and a request that is told to have succeeded is on it with the
// right key and numbers (invariants 3, 4, 48 and 65).
func TestDMRace24DiskDiesAndReturns(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keyslot: transforming", "keyslot: encrypted", "keyslot: losing", "keyslot: lost", "dm: suspended"},
		Outcomes: []string{"at once", "sent again"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			d := b.mortalLeaf("a")
			vol := b.Map("vol", onto("a"))
			m := b.Device("vol")
			k := b.key("k", xts4k, 9)
			b.write(vol, k, 4096, block4k)
			back := make(chan struct{})
			w.Go("write", func() {
				if b.write(vol, k, 0, block4k, errDead) {
					w.Outcome("at once")
					return
				}
				w.Outcome("sent again")
				<-back
				b.write(vol, k, 0, block4k)
			})
			w.Go("disk", func() {
				d.dead = true
				w.At("dead")
				if err := m.Suspend(w.Ctx, dm.SuspendOptions{NoFlush: true}); err != nil {
					w.Errorf("suspend: %v", err)
				}
				slots := b.engines[0].slots
				if err := b.managers[0].Reset(func() { clear(slots) }); err != nil {
					w.Errorf("reset: %v", err)
				}
				d.dead = false
				close(back)
				if err := m.Resume(w.Ctx); err != nil {
					w.Errorf("resume: %v", err)
				}
			})
			w.Check(func() {
				want := encrypted(k.bytes, xts4k, blkcrypto.DUN64(0), block4k)
				other := encrypted(k.bytes, xts4k, blkcrypto.DUN64(1), block4k)
				for _, got := range d.came {
					if !bytes.Equal(got, want) && !bytes.Equal(got, other) {
						w.Errorf("%d bytes came to the disk that are not the ciphertext (invariant 4)", len(got))
					}
				}
				b.wantMedium(d.RAM, k, 0, block4k)
				b.wantMedium(d.RAM, k, 4096, block4k)
				if !b.engines[0].has(k.bytes) {
					w.Error("the key was not put back into the engine (invariant 65)")
				}
			})
		},
	})
}

// Race 27: data unit numbers of four bytes, as IV_INO_LBLK_32 has, at their wrap. A
// request that would run over it is refused whole, wherever it would be cut, at every
// level and by every table: nothing of it comes to the disk. The two that a file system
// sends instead, one to each side, are adjacent on the disk and served each by its own
// number, whatever table is live: nothing here joins requests (invariants 9 and 10).
func TestDMRace27NumbersWrap(t *testing.T) {
	narrow := xts4k
	narrow.DUNBytes = 4
	const last = 1<<32 - 1
	for name, next := range map[string]string{
		"cut at the wrap": "0 8 linear a 0\n8 120 linear a 8",
		"cut elsewhere":   "0 4 linear a 0\n4 124 linear a 4",
		"in software":     onto("plain"),
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points: []string{"dm: routed", "dm: swapped"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					medium := dmtest.NewRAM(blkSize)
					b.Leaf("plain", medium, nil)
					b.Leaf("a", shared{medium}, b.engine())
					vol := b.Map("vol", onto("a"))
					k := b.key("k", narrow, 9)
					send := func(off int64, dun uint64, n int) error {
						r := request(block.OpWrite, k, off, bytes.Repeat(block4k, n))
						r.Crypt.DUN = blkcrypto.DUN64(dun)
						return vol.Do(w.Ctx, r)
					}
					w.Go("below", func() {
						if err := send(0, last, 1); err != nil {
							w.Errorf("write with the last number: %v", err)
						}
						if err := send(16384, last, 2); !errors.Is(err, block.ErrInvalid) {
							w.Errorf("write across the wrap: %v, want %v (invariant 10)", err, block.ErrInvalid)
						}
						if err := send(16384, last+1, 1); !errors.Is(err, block.ErrInvalid) {
							w.Errorf("write beyond the wrap: %v, want %v (invariant 10)", err, block.ErrInvalid)
						}
					})
					w.Go("above", func() {
						if err := send(4096, 0, 1); err != nil {
							w.Errorf("write with the first number: %v", err)
						}
					})
					w.Go("reload", func() { b.reload("vol", next) })
					w.Check(func() {
						got := medium.Bytes()
						if !bytes.Equal(got[:4096], encrypted(k.bytes, narrow, blkcrypto.DUN64(last), block4k)) ||
							!bytes.Equal(got[4096:8192], encrypted(k.bytes, narrow, blkcrypto.DUN{}, block4k)) {
							w.Error("wrong bytes at the wrap (invariant 3)")
						}
						if !bytes.Equal(got[8192:], make([]byte, blkSize-8192)) {
							w.Error("something of a request that was refused is on the medium")
						}
					})
				},
			})
		})
	}
	if blkcrypto.DUN64(last).IsContiguous(1, blkcrypto.DUN{}) {
		t.Error("requests on both sides of the wrap count as one run (invariant 9)")
	}
}

// Race 28: after a reload, boundaries lie inside data units, while a request of such
// units waits. The row boundary is in TestDMRace14... ("other rows"); here it is also a
// stripe that is smaller than a unit, where the engine cannot have them any more, and
// software encrypts each unit whole before it is cut; and a row that begins at an odd
// sector of its disk, which cuts nothing. The bytes are the same (invariants 1 and 6).
func TestDMRace28BoundaryInsideADataUnit(t *testing.T) {
	for name, next := range map[string]string{
		"row":           "0 3 linear b 0\n3 6 linear c 0\n9 119 linear b 9",
		"small stripes": "0 128 striped 2 4 b 0 c 0",
		"odd start":     "0 120 linear b 1",
	} {
		for _, op := range []block.Op{block.OpRead, block.OpWrite} {
			t.Run(fmt.Sprint(name, ", ", op), func(t *testing.T) {
				interleave.Run(t, interleave.Race{
					Points:   []string{"dm: admitted", "dm: routed", "block: opened", "dm: suspended", "dm: swapped"},
					Outcomes: []string{"old table", "new table"},
					World: func(w *interleave.World) {
						b := newBlkWorld(w)
						old := b.disks("a", "b", "c")["a"]
						vol := b.Map("vol", onto("a"))
						next := b.Table(next)
						k := b.key("k", xts4k, 9)
						plain := append(bytes.Clone(block4k), bytes.Repeat([]byte{7}, 4096)...)
						want := encrypted(k.bytes, xts4k, blkcrypto.DUN64(0), plain)
						if op == block.OpRead {
							old.Set(want)
							if err := next.Do(w.Ctx, block.Request{Op: block.OpWrite, Len: 8192, Data: block.Bytes(bytes.Clone(want))}); err != nil {
								w.Fatal(err)
							}
						}
						w.Go("request", func() {
							data := make([]byte, len(plain))
							if op == block.OpWrite {
								copy(data, plain)
							}
							if err := vol.Do(w.Ctx, request(op, k, 0, data)); err != nil || !bytes.Equal(data, plain) {
								w.Errorf("%v: %v; right data: %v (invariant 6)", op, err, bytes.Equal(data, plain))
							}
						})
						w.Go("reload", func() {
							for _, s := range []step{
								{"suspend", func() error { return vol.Suspend(w.Ctx, dm.SuspendOptions{}) }},
								{"load", func() error { return vol.Load(w.Ctx, next) }},
								{"resume", func() error { return vol.Resume(w.Ctx) }},
							} {
								if err := s.call(); err != nil {
									w.Errorf("%s: %v", s.name, err)
								}
							}
						})
						w.Check(func() {
							engine, software := k.ServedBy()
							if engine+software != 1 {
								w.Errorf("transformed %d times by engines, %d times by software", engine, software)
							}
							got := dmtest.Read(w, vol, 0, len(want)) // of the new table
							if old.Count(op) > 0 {
								w.Outcome("old table")
								got = old.Bytes()[:len(want)]
							} else {
								w.Outcome("new table")
							}
							if !bytes.Equal(got, want) {
								w.Error("wrong bytes on the medium (invariant 1)")
							}
						})
					},
				})
			})
		}
	}
}
