//go:build invariants || race

package dm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// Races 12 to 15 of dm-fscrypt.md, section 15: requests on their way when the table
// changes.

// Race 12, grow with the key in software: TestRaceBlk09... has the requests and the
// eviction from both residences. Here a read overlaps the write, each by software or by
// the engine: it sees the old data or the new, whole (invariants 1 and 41), and the key
// is then in both places and gone from both (invariant 57).
func TestDMRace12OverlappingReadWhileItGrows(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: routed", "keyslot: encrypted", "keyslot: read", "dm: swapped"},
		Outcomes: []string{"old data", "new data"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			medium := dmtest.NewRAM(blkSize)
			b.Leaf("plain", medium, nil)
			b.Leaf("engine", shared{medium}, b.engine())
			vol := b.Map("vol", onto("plain"))
			k := b.key("k", xts4k, 9)
			before, after := block4k, bytes.Repeat([]byte("new!"), 1024)
			b.write(vol, k, 0, before)
			w.Go("write", func() { b.write(vol, k, 0, after) })
			w.Go("read", func() {
				got := make([]byte, 4096)
				if err := vol.Do(w.Ctx, request(block.OpRead, k, 0, got)); err != nil {
					w.Errorf("read: %v", err)
				}
				switch {
				case bytes.Equal(got, before):
					w.Outcome("old data")
				case bytes.Equal(got, after):
					w.Outcome("new data")
				default:
					w.Error("a read beside a write saw neither the old data nor the new")
				}
			})
			w.Go("reload", func() { b.reload("vol", onto("engine")) })
			w.Check(func() {
				b.wantMedium(medium, k, 0, after)
				b.write(vol, k, 4096, before)
				if engine, software := k.ServedBy(); engine == 0 || software == 0 {
					w.Errorf("served by engines %d times and by software %d times, want both", engine, software)
				}
				b.evict(k)
				b.wantGone(k)
			})
		},
	})
}

// Race 13, shrink with native I/O in flight, with a flush and without one. Nothing is
// pushed back and rewound here: the swap waits for what the old table has begun, and
// what comes later begins with the new one. So each request is transformed once, by the
// table that was live when it came to the disk, with the numbers that it had (invariants
// 3, 28 and 37). The one that must not wait is sent again by its sender: TestRaceBlk11...
func TestDMRace13ShrinkWithNativeIOInFlight(t *testing.T) {
	for _, op := range []block.Op{block.OpRead, block.OpWrite} {
		for _, noFlush := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, noflush: %v", op, noFlush), func(t *testing.T) {
				between := map[block.Op]string{block.OpRead: "keyslot: read", block.OpWrite: "keyslot: encrypted"}[op]
				interleave.Run(t, interleave.Race{
					Points:   []string{"dm: routed", between, "block: closed", "dm: suspended", "dm: swapped"},
					Outcomes: []string{"engine", "software"},
					World: func(w *interleave.World) {
						b := newBlkWorld(w)
						medium := dmtest.NewRAM(blkSize)
						b.Leaf("plain", medium, nil)
						b.Leaf("engine", shared{medium}, b.engine())
						vol := b.Map("vol", onto("engine"))
						k := b.key("k", xts4k, 9)
						if op == block.OpRead {
							medium.Set(encrypted(k.bytes, xts4k, blkcrypto.DUN64(0), block4k))
						}
						live := ""
						medium.Before = func(_ context.Context, r block.Request) error {
							if r.Op == op {
								live = vol.TableText(false, dm.StatusTable)
							}
							return nil
						}
						w.Go("request", func() {
							data := make([]byte, 4096)
							if op == block.OpWrite {
								copy(data, block4k)
							}
							if err := vol.Do(w.Ctx, request(op, k, 0, data)); err != nil || !bytes.Equal(data, block4k) {
								w.Errorf("%v: %v, right data: %v (invariant 37)", op, err, bytes.Equal(data, block4k))
							}
							engine, software := k.ServedBy()
							if engine+software != 1 || (engine == 1) != (live == onto("engine")+"\n") || medium.Count(op) != 1 {
								w.Errorf("over %q: transformed %d times by engines, %d times by software", live, engine, software)
							}
							if engine == 1 {
								w.Outcome("engine")
							} else {
								w.Outcome("software")
							}
						})
						w.Go("reload", func() {
							err := b.Device("vol").Reload(w.Ctx, b.Table(onto("plain")), dm.SuspendOptions{NoFlush: noFlush})
							if err != nil {
								w.Errorf("reload: %v", err)
							}
							if flushed := medium.Count(block.OpFlush) > 0; flushed == noFlush {
								w.Errorf("noflush: %v; flushed: %v", noFlush, flushed)
							}
						})
						w.Check(func() { b.wantMedium(medium, k, 0, block4k) })
					},
				})
			})
		}
	}
}

// Race 14, split remainder against suspend. A request is admitted once and divided by
// the table that was live then: there is no remainder that could be left for the next
// one (invariant 23). All its parts are on the disks of one table, or none is if it is
// too long for the new one (invariant 27), whatever rows and engines that has. Where a
// level above divides it, each part is a request to the level below and is whole there.
func TestDMRace14PartsAgainstSwap(t *testing.T) {
	for name, c := range map[string]struct {
		vol, next string // the device that is reloaded, and its new table
		outcomes  []string
	}{
		"other rows":     {"vol", "0 4 linear c 0\n4 124 linear c 4", []string{"old", "new"}},
		"other caps":     {"vol", "0 8 linear c 0\n8 8 linear plain 8", []string{"old", "new"}},
		"too small":      {"vol", "0 8 linear c 0", []string{"old", "out of range"}},
		"a level below":  {"mid", "0 128 linear c 0", []string{"old", "new", "some of each"}},
		"smaller, below": {"mid", "0 8 linear c 0", []string{"old", "out of range", "some of each"}},
	} {
		points := []string{"dm: routed", "block: opened", "keyslot: encrypted", "dm: swapped"}
		if c.vol == "mid" {
			points = []string{"block: entering", "dm: swapped"}
		}
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   points,
				Outcomes: c.outcomes,
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					disks := b.disks("a", "b", "c")
					disks["plain"] = b.disk("plain", nil)
					b.Map("mid", "0 8 linear a 0\n8 120 linear b 8")
					rows := "0 8 linear a 0\n8 120 linear b 8"
					if c.vol == "mid" {
						rows = "0 8 linear mid 0\n8 8 linear mid 8"
					}
					vol := b.Map("vol", rows)
					k := b.key("k", xts4k, 9)
					plain := append(bytes.Clone(block4k), block4k[9:]...)
					plain = append(plain, block4k[:9]...)
					var err error
					w.Go("write", func() { err = vol.Do(w.Ctx, request(block.OpWrite, k, 0, bytes.Clone(plain))) })
					w.Go("reload", func() { b.reload(c.vol, c.next) })
					w.Check(func() {
						want := encrypted(k.bytes, xts4k, blkcrypto.DUN64(0), plain)
						var old, next int
						for unit := range 2 {
							for name, d := range disks {
								switch got := d.Bytes()[unit*4096:][:4096]; {
								case bytes.Equal(got, make([]byte, 4096)):
								case !bytes.Equal(got, want[unit*4096:][:4096]):
									w.Errorf("disk %s has neither nothing nor the right bytes of unit %d (invariants 1 and 3)", name, unit)
								case name == "a" || name == "b":
									old++
								default:
									next++
								}
							}
						}
						switch {
						case errors.Is(err, block.ErrOutOfRange) && (c.vol == "mid" && old+next < 2 || old+next == 0):
							w.Outcome("out of range")
						case err != nil:
							w.Errorf("write: %v, with %d parts done", err, old+next)
						case old == 2 && next == 0:
							w.Outcome("old")
						case old == 0 && next == 2:
							w.Outcome("new")
						case old == 1 && next == 1:
							w.Outcome("some of each")
						default:
							w.Errorf("%d parts are on the disks of the old table, %d on those of the new one", old, next)
						}
					})
				},
			})
		})
	}
}

// Race 15, flush and data across a swap. A request is a flush or has data, never both:
// the order of the two is the sender's, who knows whether the flush failed before there
// is data to send (invariant 13; Linux loses that error). What had been written before
// the flush is durable when it succeeds, also on a disk that has left the table
// meanwhile; FUA is kept, by whichever disk (invariants 12 and 14). If the disk fails
// the flush of the suspension, nothing is swapped (invariant 24).
func TestDMRace15FlushThenDataAcrossSwap(t *testing.T) {
	errFlush := errors.New("the cache does not flush")
	for name, fails := range map[string]bool{"flush works": false, "flush fails": true} {
		points := map[bool][]string{
			false: {"dm: admitted", "block: opened", "dm: suspended", "dm: swapped"},
			true:  {"dm: admitted", "block: opened", "dm: rechecked", "block: closed"},
		}[fails]
		outcomes := map[bool][]string{
			false: {"reloaded", "durable by the old disk", "durable by the new disk"},
			true:  {"reload refused", "flush failed"},
		}[fails]
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   points,
				Outcomes: outcomes,
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					var log []string // what the disks did
					disk := func(name string, fua block.Support) {
						d := dmtest.NewRAM(blkSize)
						d.SetInfo(func(i *block.Info) { i.FUA, i.VolatileCache = fua, true })
						d.Before = func(_ context.Context, r block.Request) error {
							line := fmt.Sprint(name, " ", r.Op)
							if r.Flags&block.FUA != 0 {
								line += " fua"
							}
							if fails && name == "a" && r.Op == block.OpFlush {
								return errFlush
							}
							log = append(log, line)
							return nil
						}
						b.Leaf(name, d, nil)
					}
					disk("a", block.None) // FUA is emulated
					disk("b", block.Native)
					vol := b.Map("vol", onto("a"))
					k := b.key("k", xts4k, 9)
					b.write(vol, k, 0, block4k)
					w.Go("sender", func() {
						err := vol.Do(w.Ctx, block.Request{Op: block.OpFlush})
						if fails {
							if !errors.Is(err, errFlush) || slices.Contains(log, "b write") {
								w.Errorf("flush: %v (invariant 13)", err)
							}
							w.Outcome("flush failed")
							return
						}
						if err != nil {
							w.Errorf("flush: %v", err)
						}
						if slices.Index(log, "a flush") < slices.Index(log, "a write") {
							w.Errorf("the flush has succeeded and the write before it is not durable: %v (invariant 12)", log)
						}
						w.At("flushed")
						r := request(block.OpWrite, k, 4096, bytes.Clone(block4k))
						r.Flags |= block.FUA
						from := len(log)
						if err := vol.Do(w.Ctx, r); err != nil {
							w.Errorf("write: %v", err)
						}
						mine := log[from:]
						write := slices.Index(mine, "a write")
						switch {
						case slices.Contains(mine, "b write fua"):
							w.Outcome("durable by the new disk")
						case write >= 0 && slices.Contains(mine[write:], "a flush"):
							w.Outcome("durable by the old disk")
						default:
							w.Errorf("a write with FUA is complete and not durable: %v (invariant 14)", mine)
						}
					})
					w.Go("reload", func() {
						err := b.Device("vol").Reload(w.Ctx, b.Table(onto("b")), dm.SuspendOptions{})
						switch {
						case err == nil:
							w.Outcome("reloaded")
						case fails && errors.Is(err, errFlush):
							w.Outcome("reload refused")
							b.wantText("vol", false, onto("a"))
							b.wantText("vol", true, "")
						default:
							w.Errorf("reload: %v", err)
						}
					})
				},
			})
		})
	}
}
