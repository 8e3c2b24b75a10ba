//go:build invariants || race

package dm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/keyslot/soft"
)

// R10: a request with a key comes while the device is suspended, gets another table and
// is resumed. It keeps its context, whichever table serves it, and no plaintext reaches
// either disk (invariants 1, 3, 29).
func TestRaceBlk10SubmitDuringSuspendReloadResume(t *testing.T) {
	for _, engine := range []bool{false, true} {
		t.Run(fmt.Sprint("an engine in the new table: ", engine), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"block: entering", "block: opened", "dm: admitted", "dm: suspended", "dm: swapping", "dm: swapped"},
				Outcomes: []string{"by the old table", "by the new table"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					old := b.disk("a", b.engine())
					next := dmtest.NewRAM(blkSize)
					if engine {
						b.Leaf("b", next, b.engine())
					} else {
						b.Leaf("b", next, nil)
					}
					vol := b.Map("vol", "0 128 linear a 0")
					k := b.key("k", xts4k, 9)
					w.Go("write", func() { b.write(vol, k, 8192, block4k) })
					w.Go("control", func() {
						m := b.Device("vol")
						for i, step := range []func() error{
							func() error { return m.Suspend(w.Ctx, dm.SuspendOptions{}) },
							func() error { return m.Load(w.Ctx, b.Table("0 128 linear b 0")) },
							func() error { return m.Resume(w.Ctx) },
						} {
							if err := step(); err != nil {
								w.Errorf("step %d: %v", i, err)
							}
							w.At("between steps")
						}
					})
					w.Check(func() {
						if old.Count(block.OpWrite) == 1 {
							w.Outcome("by the old table")
							b.wantMedium(old, k, 8192, block4k)
						} else {
							w.Outcome("by the new table")
							b.wantMedium(next, k, 8192, block4k)
						}
						if n := old.Count(block.OpWrite) + next.Count(block.OpWrite); n != 1 {
							w.Errorf("%d writes to the disks, want 1", n)
						}
					})
				},
			})
		})
	}
}

// R11: a request that must not wait and lies across two rows is sent again when the
// device was suspended. Its DUN carries from the first limb into the second at the
// boundary (invariants 3, 10, 12).
func TestRaceBlk11SplitAndSentAgainAtALimbCarry(t *testing.T) {
	config := xts4k
	config.DUNBytes = 16
	plain := append(bytes.Clone(block4k), block4k[9:]...)
	plain = append(plain, block4k[:9]...)
	interleave.Run(t, interleave.Race{
		Points:   []string{"block: entering", "dm: suspended", "dm: swapped"},
		Outcomes: []string{"at once", "again"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			medium := dmtest.NewRAM(blkSize)
			b.Leaf("engine", shared{medium}, b.engine())
			b.Leaf("plain", medium, nil)
			rows := "0 8 linear engine 0\n8 120 linear plain 8"
			vol := b.Map("vol", rows)
			k := b.key("k", config, 9)
			dun := blkcrypto.DUN{math.MaxUint64} // the second unit is {0, 1}
			// A write that must not wait is served only where no key has to be programmed.
			b.write(vol, k, 0, plain)
			w.Go("write", func() {
				data := bytes.Clone(plain)
				r := request(block.OpWrite, k, 0, data)
				r.Crypt.DUN = dun
				r.Flags = block.NoWait | block.Scratch
				err := vol.Do(w.Ctx, r)
				if err == nil {
					w.Outcome("at once")
					return
				}
				w.Outcome("again")
				if !errors.Is(err, block.ErrWouldBlock) || !bytes.Equal(data, plain) {
					w.Errorf("write that must not wait: %v, data unchanged %v", err, bytes.Equal(data, plain))
				}
				r.Flags &^= block.NoWait
				if err := vol.Do(w.Ctx, r); err != nil {
					w.Errorf("write: %v", err)
				}
			})
			w.Go("reload", func() { b.reload("vol", rows) })
			w.Check(func() {
				if got, want := medium.Bytes()[:len(plain)], encrypted(k.bytes, config, dun, plain); !bytes.Equal(got, want) {
					w.Errorf("the medium differs from the reference: unit 0 equal %v, unit 1 equal %v",
						bytes.Equal(got[:4096], want[:4096]), bytes.Equal(got[4096:], want[4096:]))
				}
			})
		},
	})
}

// R12: the first use of a key fails half way in the engine, and software takes over for
// that request while another one programs the engine again, and the key is evicted. Both
// places are empty then, and what was written is the same whoever did it (invariants 2,
// 18, 21).
func TestRaceBlk12FirstUseFailsAndSoftwareTakesOver(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keyslot: programming", "blkcrypto: closed", "blkcrypto: asking holder"},
		Outcomes: []string{"software", "engine", "refused"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			disk := b.disk("a", b.engine())
			b.engines[0].fails = 1
			dev := b.Handle("a")
			k := b.key("k", xts4k, 9)
			for i := range int64(2) {
				w.Go(fmt.Sprint("write ", i), func() {
					if !b.write(dev, k, i*4096, block4k, blkcrypto.ErrKeyEvicted) {
						w.Outcome("refused")
						return
					}
					b.wantMedium(disk, k, i*4096, block4k)
				})
			}
			w.Go("evict", func() { b.evict(k); b.wantGone(k) })
			w.Check(func() {
				b.wantGone(k)
				engine, software := k.ServedBy()
				if software > 1 {
					w.Errorf("software served %d requests for one fault (invariant 18)", software)
				}
				if engine > 0 {
					w.Outcome("engine")
				}
				if software > 0 {
					w.Outcome("software")
				}
			})
		},
	})
}

// R16: the parts of a split request complete in any order and some fail: the error is
// that of the first part in the order of the request, the other parts are done, and a
// read with a failed part is no success (invariants 7, 9, 38).
func TestRaceBlk16SplitPartsCompleteInAnyOrder(t *testing.T) {
	faults := map[string]error{"a": errors.New("fault of a"), "b": errors.New("fault of b"), "c": errors.New("fault of c")}
	for _, op := range []block.Op{block.OpWrite, block.OpRead} {
		for _, failing := range []string{"", "b", "bc"} {
			t.Run(fmt.Sprintf("%v, %q fail", op, failing), func(t *testing.T) {
				points := []string{"keyslot: encrypted"}
				if op == block.OpRead {
					points = []string{"keyslot: read"}
				}
				interleave.Run(t, interleave.Race{Points: points, World: func(w *interleave.World) {
					b := newBlkWorld(w)
					disks := map[string]*dmtest.RAM{}
					k := b.key("k", xts4k, 9)
					plain := bytes.Repeat(block4k, 3)
					for i, name := range []string{"a", "b", "c"} {
						d := dmtest.NewRAM(4096)
						d.Set(encrypted(k.bytes, xts4k, blkcrypto.DUN64(uint64(i)), block4k))
						if op == block.OpWrite {
							d.Set(make([]byte, 4096))
						}
						d.Before = func(context.Context, block.Request) error {
							w.At("disk " + name)
							if bytes.Contains([]byte(failing), []byte(name)) {
								return faults[name]
							}
							return nil
						}
						if i == 1 {
							b.Leaf(name, d, nil) // the fallback's
						} else {
							b.Leaf(name, d, b.engine())
						}
						disks[name] = d
					}
					vol := b.Map("vol", "0 8 linear a 0\n8 8 linear b 0\n16 8 linear c 0")
					w.Go("request", func() {
						data := make([]byte, len(plain))
						if op == block.OpWrite {
							copy(data, plain)
						}
						err := vol.Do(w.Ctx, request(op, k, 0, data))
						switch {
						case failing == "" && err != nil:
							w.Error(err)
						case failing != "" && !errors.Is(err, faults[failing[:1]]):
							w.Errorf("got %v, want %v (invariant 38)", err, faults[failing[:1]])
						}
						for i, name := range []string{"a", "b", "c"} {
							whole := bytes.Equal(data[i*4096:][:4096], block4k)
							if fails := bytes.Contains([]byte(failing), []byte(name)); op == block.OpRead && whole == fails {
								w.Errorf("read of %s: decrypted %v, failed %v (invariant 7)", name, whole, fails)
							}
						}
					})
					w.Check(func() {
						for i, name := range []string{"a", "b", "c"} {
							want := make([]byte, 4096)
							if op == block.OpRead || !bytes.Contains([]byte(failing), []byte(name)) {
								want = encrypted(k.bytes, xts4k, blkcrypto.DUN64(uint64(i)), block4k)
							}
							if !bytes.Equal(disks[name].Bytes(), want) {
								w.Errorf("disk %s does not hold what it should", name)
							}
						}
					})
				}})
			})
		}
	}
}

// R17: capabilities are read while a reload two levels down changes them. A reader sees
// the old ones or the new ones, never a mixture and never the old ones again
// (invariants 31, 32).
func TestRaceBlk17CapabilitiesAreReadDuringAReload(t *testing.T) {
	for _, grow := range []bool{true, false} {
		t.Run(fmt.Sprint("grow: ", grow), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"dm: suspended", "dm: swapping", "dm: swapped"},
				Outcomes: []string{"old", "new"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					b.disk("plain", nil)
					b.disk("engine", b.engine())
					from, to := "0 128 linear engine 0", "0 128 linear plain 0"
					if grow {
						from, to = to, from
					}
					b.Map("low", from)
					b.Map("mid", "0 128 linear low 0")
					top := b.Map("top", "0 128 linear mid 0")
					full := soft.New("all", 1).Profile()
					old, next := full, blkcrypto.Profile{}
					if grow {
						old, next = next, full
					}
					read := func(h *dm.Handle) (isNew bool) {
						for _, p := range []blkcrypto.Profile{h.Keyslots().Profile(), h.Info().Crypto} {
							switch p {
							case next:
								isNew = true
							case old:
								if isNew {
									w.Errorf("%s: the manager's profile is new and the device's is old", h.Name())
								}
							default:
								w.Errorf("%s: a profile that was never true: %v (invariant 32)", h.Name(), p)
							}
						}
						return isNew
					}
					w.Go("reader", func() {
						mid := b.Handle("mid")
						seen := false
						for range 3 {
							isNew := read(top)
							if seen && !isNew {
								w.Error("the old capabilities come back (invariant 31)")
							}
							if seen = isNew; seen && !read(mid) {
								w.Error("the new capabilities are visible above and not below")
							}
							w.At("read")
						}
						if seen {
							w.Outcome("new")
						} else {
							w.Outcome("old")
						}
					})
					w.Go("reload", func() { b.reload("low", to) })
					w.Check(func() {
						if !read(top) {
							w.Error("after the reload the old capabilities are visible (invariant 31)")
						}
					})
				},
			})
		})
	}
}
