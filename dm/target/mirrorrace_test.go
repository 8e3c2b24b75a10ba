//go:build invariants || race

package target_test

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// A raceRig has three legs with engines. The second one is on a device beneath,
// which can be reloaded onto the same disk without an engine.
type raceRig struct {
	iw   *interleave.World
	w    *dmtest.World
	legs [3]*faulty
	key  *blkcrypto.Key
	dev  *dm.Handle
}

func newRaceRig(w *interleave.World) *raceRig {
	x := &raceRig{iw: w, w: dmtest.NewWithFallback(w, 2), key: dmtest.NewKey(w, "k", unit4K, 1)}
	for i, name := range []string{"a", "b", "c"} {
		x.legs[i] = newFaulty(2 * blockSize)
		x.legs[i].Set(bytes.Repeat([]byte{0xdd}, (2-i%2)*blockSize))
		x.w.Leaf(name, x.legs[i], engine(name, 1))
	}
	x.w.Leaf("plain", x.legs[1], nil)
	x.w.Map("leg", "0 16 linear b 0")
	return x
}

func (x *raceRig) do(op block.Op, data []byte) error {
	r := request(op, data)
	r.Crypt = blkcrypto.Context{Key: x.key, DUN: blkcrypto.DUN64(9)}
	return x.dev.Do(x.iw.Ctx, r)
}

// loseEngine has the second leg go on in software.
func (x *raceRig) loseEngine() { x.w.Reload("leg", "0 16 linear plain 0") }

// letters are those of the legs in the status.
func (x *raceRig) letters() string { return strings.Fields(firstStatus(x.dev))[len(x.dev.Under())+6] }

// end has all legs made alike and looks whether they are, and hold want.
func (x *raceRig) end(want []byte) {
	for _, l := range x.legs {
		l.heal()
	}
	if err := x.dev.Suspend(x.iw.Ctx, dm.SuspendOptions{}); err != nil {
		x.iw.Fatal(err)
	}
	if err := x.dev.Resume(x.iw.Ctx); err != nil {
		x.iw.Fatal(err)
	}
	for n := x.dev.Event(); !strings.Contains(firstStatus(x.dev), " 1/1 "); {
		var err error
		if n, err = x.dev.Wait(x.iw.Ctx, n); err != nil {
			x.iw.Fatal(err)
		}
	}
	for _, s := range x.dev.Under() {
		leg := make([]byte, 2*blockSize)
		if err := s.Dev.Do(x.iw.Ctx, request(block.OpRead, leg)); err != nil {
			x.iw.Fatal(err)
		}
		if at := firstDiff(leg, x.legs[0].Bytes()); at >= 0 {
			x.iw.Errorf("%s differs from the first leg at %d", dm.DeviceName(s.Dev), at)
		}
	}
	got := make([]byte, len(want))
	if err := x.do(block.OpRead, got); err != nil || !bytes.Equal(got, want) {
		x.iw.Errorf("the mirror holds %x… and %x…, want %x… and %x… (%v)", got[0], got[blockSize], want[0], want[blockSize], err)
	}
	if err := x.dev.Close(); err != nil {
		x.iw.Error(err)
	}
	if err := x.dev.Mapped.Remove(x.iw.Ctx, dm.RemoveOptions{}); err != nil {
		x.iw.Error(err)
	}
}

func both(first, second byte) []byte {
	return append(bytes.Repeat([]byte{first}, blockSize), bytes.Repeat([]byte{second}, blockSize)...)
}

// TestRace29MirrorWriteAgainstCopy: dm-fscrypt.md, race 29. A device becomes a
// mirror, of which only the first leg is right, so that it is copied, without a key;
// meanwhile a block is written, with a key, the second leg loses its engine to the
// fallback, and the third fails the first change that comes to it, or the second.
func TestRace29MirrorWriteAgainstCopy(t *testing.T) {
	for n, outcomes := range [][]string{
		{"AAS"},        // it is the copy's
		{"AAA", "AAD"}, // the write came before the copy, and not to this leg; or after it
	} {
		nth := int64(n + 1)
		interleave.Run(t, interleave.Race{
			Points:   []string{"mirror: about to copy", "mirror: copying", "mirror: copy read", "mirror: writing leg"},
			Outcomes: outcomes,
			World: func(w *interleave.World) {
				x := newRaceRig(w)
				x.dev = x.w.Map("m", "0 16 linear a 0")
				if err := x.do(block.OpWrite, both(1, 1)); err != nil {
					w.Fatal(err)
				}
				if err := x.dev.Load(w.Ctx, x.w.Table("0 16 mirror core 1 16 3 a 0 leg 0 c 0 1 handle_errors")); err != nil {
					w.Fatal(err)
				}
				var changes atomic.Int64
				x.legs[2].fail(func(r block.Request) error {
					if r.Op.Changes() && changes.Add(1) == nth {
						return block.ErrIO
					}
					return nil
				})
				w.Go("resume", func() {
					if err := x.dev.Resume(w.Ctx); err != nil {
						w.Error(err)
					}
				})
				w.Go("write", func() {
					if err := x.do(block.OpWrite, both(2, 2)[:blockSize]); err != nil {
						w.Errorf("write: %v", err)
					}
				})
				w.Go("engine", x.loseEngine)
				w.Check(func() {
					w.Outcome(x.letters())
					x.end(both(2, 1))
				})
			},
		})
	}
}

// TestRace29MirrorReadsElsewhere: dm-fscrypt.md, race 29. The first leg fails a
// read, which is made again on the second, while that loses its engine and the
// block is written: what comes back is the old data or the new, in plain.
func TestRace29MirrorReadsElsewhere(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"mirror: writing leg", "mirror: reading leg"},
		Outcomes: []string{"old", "new"},
		World: func(w *interleave.World) {
			x := newRaceRig(w)
			x.dev = x.w.Map("m", "0 16 mirror core 2 16 nosync 2 a 0 leg 0 1 handle_errors")
			if err := x.do(block.OpWrite, both(1, 1)); err != nil {
				w.Fatal(err)
			}
			x.legs[0].fail(failingOps(block.OpRead))
			w.Go("read", func() {
				got := make([]byte, 2*blockSize)
				err := x.do(block.OpRead, got)
				switch {
				case err != nil:
					w.Errorf("read: %v", err)
				case bytes.Equal(got, both(1, 1)):
					w.Outcome("old")
				case bytes.Equal(got, both(2, 1)):
					w.Outcome("new")
				default:
					w.Errorf("read %x… and %x…", got[0], got[blockSize])
				}
			})
			w.Go("write", func() {
				if err := x.do(block.OpWrite, both(2, 2)[:blockSize]); err != nil {
					w.Errorf("write: %v", err)
				}
			})
			w.Go("engine", x.loseEngine)
			w.Check(func() { x.end(both(2, 1)) })
		},
	})
}

// TestRaceMirrorWritesOfOneBlock come to all legs in one order.
func TestRaceMirrorWritesOfOneBlock(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"mirror: marked", "mirror: writing leg"},
		Outcomes: []string{"1", "2"},
		World: func(w *interleave.World) {
			x := newRaceRig(w)
			x.dev = x.w.Map("m", "0 16 mirror core 2 16 nosync 2 a 0 leg 0")
			for i := range byte(2) {
				w.Go(string('1'+i), func() {
					if err := x.do(block.OpWrite, both(i+1, i+1)); err != nil {
						w.Errorf("write: %v", err)
					}
				})
			}
			w.Check(func() {
				got := make([]byte, blockSize)
				if err := x.do(block.OpRead, got); err != nil {
					w.Fatal(err)
				}
				w.Outcome(string('0' + got[0]))
				x.end(both(got[0], got[0]))
			})
		},
	})
}

// TestRaceMirrorNotesTheSourceFirst: the first leg fails all writes from now on. A
// write that only the other leg has is not acknowledged before the log says that
// this one counts, although it may be another write that has found that out.
func TestRaceMirrorNotesTheSourceFirst(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points: []string{"mirror: marked", "mirror: without a leg"},
		World: func(w *interleave.World) {
			x := newRaceRig(w)
			log := x.w.Disk("log", 2048, 0)
			log.Set(mirrorLog(2, 1, 0))
			x.dev = x.w.Map("m", "0 16 mirror disk 2 log 16 2 a 0 c 0 1 handle_errors")
			if err := x.do(block.OpWrite, both(1, 1)); err != nil {
				w.Fatal(err)
			}
			x.legs[0].fail(failingOps(block.OpWrite))
			for i, name := range []string{"first", "second"} {
				w.Go(name, func() {
					r := request(block.OpWrite, make([]byte, blockSize))
					r.Off = int64(i) * blockSize
					if err := x.dev.Do(w.Ctx, r); err != nil {
						w.Errorf("write: %v", err)
					}
					if !bytes.Equal(log.Bytes()[512:][:8], []byte("KWmirror")) {
						w.Error("a write of which the log does not say where it is was acknowledged")
					}
				})
			}
			w.Check(func() {
				if err := x.dev.Close(); err != nil {
					w.Error(err)
				}
				if err := x.dev.Mapped.Remove(w.Ctx, dm.RemoveOptions{}); err != nil {
					w.Error(err)
				}
			})
		},
	})
}
