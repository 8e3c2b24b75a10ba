package target_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/model"
)

// A snapHistory is an origin and two snapshots on one disk with a volatile cache,
// whose power fails at a request. What lives on is the medium.
type snapHistory struct {
	*dmtest.World
	t    *testing.T
	kind string // of the snapshots: "P 1"
	rnd  *rand.Rand
	disk *failing
	devs []*snapDev
}

// A snapDev is one of the three, what it holds, and who uses which part of it.
type snapDev struct {
	name string
	*dm.Handle
	m    *model.Disk
	mu   sync.Mutex
	held [][2]int64
	free sync.Cond
}

const (
	snapSize = 64 << 10 // of the origin
	cowSize  = 128 << 10
)

// failing is a disk whose power fails before request left, counted from 0. No
// request is under way at that moment, and none succeeds after it.
type failing struct {
	*model.Device
	seed   uint64
	mu     sync.Mutex
	left   int
	medium []byte // after the failure
}

func (f *failing) Do(ctx context.Context, r block.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left <= 0 {
		if f.medium == nil {
			f.medium = f.Crash(f.seed)
		}
		return block.ErrIO
	}
	return f.Device.Do(ctx, r)
}

func (f *failing) dead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.medium != nil
}

// boot builds everything on a medium. The models begin with what it holds.
func (h *snapHistory) boot(medium []byte, left int) {
	h.disk = &failing{Device: model.NewDevice(block.Info{Size: int64(len(medium)), LogicalBlock: 512}), seed: h.rnd.Uint64(), left: 1 << 40}
	r := block.Request{Op: block.OpWrite, Len: int64(len(medium)), Data: block.Bytes(medium)}
	for _, r := range []block.Request{r, {Op: block.OpFlush}} {
		if err := h.disk.Do(h.t.Context(), r); err != nil {
			h.t.Fatal(err)
		}
	}
	h.World = dmtest.New(h.t)
	h.Leaf("disk", h.disk, nil)
	snapTables(h.World)
	h.devs = nil
	h.add("origin", "0 128 snapshot-origin o")
	h.add("s0", "0 128 snapshot o c0 "+h.kind)
	h.disk.mu.Lock()
	h.disk.left = left
	h.disk.mu.Unlock()
}

// snapTables makes the origin and two COW devices on one disk.
func snapTables(w *dmtest.World) {
	w.Map("o", "0 128 linear disk 0")
	w.Map("c0", "0 256 linear disk 128")
	w.Map("c1", "0 256 linear disk 384")
}

func (h *snapHistory) add(name, table string) *snapDev {
	d := &snapDev{name: name, Handle: h.Map(name, table), m: model.New(snapSize, 512)}
	d.free.L = &d.mu
	if !strings.HasSuffix(status(d.Handle), "Invalid") {
		d.m.Begin(0, dmtest.Read(h.t, d, 0, snapSize)).End(true, true)
	}
	h.devs = append(h.devs, d)
	return d
}

func (d *snapDev) reserve(off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for slices.ContainsFunc(d.held, func(x [2]int64) bool { return off < x[1] && x[0] < off+n }) {
		d.free.Wait()
	}
	d.held = append(d.held, [2]int64{off, off + n})
}

func (d *snapDev) unreserve(off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = slices.DeleteFunc(d.held, func(x [2]int64) bool { return x[0] == off })
	d.free.Broadcast()
}

// step makes one random request and compares what it reads. The error is one
// that is not due to the power.
func (d *snapDev) step(h *snapHistory, rnd *rand.Rand) error {
	n := (1 + rnd.Int64N(6)) << 9
	if rnd.IntN(8) == 0 {
		n = (1 + rnd.Int64N(40)) << 9
	}
	off := rnd.Int64N((snapSize-n)>>9+1) << 9
	r := block.Request{Op: block.Op(rnd.IntN(2)), Off: off, Len: n, Data: block.Bytes(make([]byte, n))}
	if rnd.IntN(4) == 0 {
		r.Flags = block.NoWait
	}
	do := func() error {
		err := d.Do(context.Background(), r)
		if errors.Is(err, block.ErrWouldBlock) && r.NoWait() {
			r.Flags &^= block.NoWait
			err = d.Do(context.Background(), r)
		}
		return err
	}
	unlessDead := func(err error) error {
		if h.disk.dead() {
			return nil
		}
		return err
	}
	if rnd.IntN(12) == 0 {
		r = block.Request{Op: block.OpFlush}
		began := d.m.BeginFlush()
		err := do()
		if err == nil {
			d.m.EndFlush(began)
		}
		return unlessDead(err)
	}
	d.reserve(off, n)
	defer d.unreserve(off)
	b, _ := r.Data.Contiguous()
	if r.Op == block.OpRead {
		err := do()
		if err == nil {
			err = d.m.Check(off, b)
		}
		return unlessDead(err)
	}
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	if rnd.IntN(8) == 0 {
		r.Flags |= block.FUA
	}
	c := d.m.Begin(off, b)
	err := do()
	c.End(err == nil, r.Flags&block.FUA != 0)
	return unlessDead(err)
}

// run has requests come to all devices at once, and tables suspended and
// replaced beside them, until the power fails or each has had so many.
func (h *snapHistory) run(steps int) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i, d := range h.devs {
		for range 2 {
			rnd := rand.New(rand.NewPCG(h.rnd.Uint64(), uint64(i)))
			wg.Go(func() {
				for range steps {
					if h.disk.dead() {
						return
					}
					if err := d.step(h, rnd); err != nil {
						h.t.Errorf("%s: %v", d.name, err)
						return
					}
				}
			})
		}
	}
	var control sync.WaitGroup
	rnd := rand.New(rand.NewPCG(h.rnd.Uint64(), 99))
	control.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			d := h.devs[rnd.IntN(len(h.devs))]
			err := error(nil)
			if rnd.IntN(2) == 0 {
				err = errors.Join(d.Suspend(context.Background(), dm.SuspendOptions{NoFlush: rnd.IntN(2) == 0}), d.Resume(context.Background()))
			} else if tab, perr := h.Parse(d.TableText(false, dm.StatusTable)); perr != nil {
				err = perr
			} else {
				err = d.Reload(context.Background(), tab, dm.SuspendOptions{NoFlush: rnd.IntN(2) == 0})
			}
			if err != nil && !h.disk.dead() {
				h.t.Errorf("%s: %v", d.name, err)
				return
			}
		}
	})
	wg.Wait()
	close(stop)
	control.Wait()
}

// shutdown removes everything, so that the next boot finds only the medium.
func (h *snapHistory) shutdown() {
	for i := len(h.devs) - 1; i >= 0; i-- {
		d := h.devs[i]
		d.Close()
		if err := d.Mapped.Remove(context.Background(), dm.RemoveOptions{}); err != nil {
			h.t.Error(err)
		}
	}
}

func snapSeed(t *testing.T) uint64 {
	s, _ := strconv.ParseUint(flag.Lookup("blocktest.seed").Value.String(), 10, 64)
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run it again with -blocktest.seed=%d", s)
		}
	})
	return s
}

// TestSnapshotHistories: an origin and two snapshots, the second of a later
// moment, hold what was written to each and nothing else, whatever runs side by
// side; and after a loss of power at any request each holds what its own flushes
// promised (dm-fscrypt.md, invariants 12, 14 and 19). Three times in a row on one medium.
func TestSnapshotHistories(t *testing.T) {
	seed := snapSeed(t)
	for _, kind := range []string{"P 1", "P 2", "PO 8"} {
		t.Run(strings.ReplaceAll(kind, " ", ""), func(t *testing.T) {
			deadline := time.Now().Add(400 * time.Millisecond)
			for round := uint64(0); round < 3 || time.Now().Before(deadline); round++ {
				h := &snapHistory{t: t, kind: kind, rnd: rand.New(rand.NewPCG(seed, round))}
				medium := make([]byte, snapSize+2*cowSize)
				for i := range snapSize {
					medium[i] = byte(h.rnd.Uint32())
				}
				oldStore(medium[snapSize:][:cowSize])
				oldStore(medium[snapSize+cowSize:])
				for range 3 {
					h.boot(medium, 1<<40)
					h.run(h.rnd.IntN(30))
					flushAll(t, h.devs...) // what the origin holds is durable when the snapshot begins
					h.add("s1", "0 128 snapshot o c1 "+kind)
					h.disk.mu.Lock()
					h.disk.left = 1 + h.rnd.IntN(600)
					h.disk.mu.Unlock()
					h.run(1000)
					devs := h.devs
					h.shutdown()
					if t.Failed() {
						t.Fatalf("round %d", round)
					}
					medium = h.disk.medium
					// A second life as it was, to look at; s1 is of the first.
					h.boot(medium, 1<<40)
					h.add("s1", "0 128 snapshot o c1 "+kind)
					for i, d := range h.devs {
						if err := devs[i].m.Legal(0, dmtest.Read(t, d, 0, snapSize)); err != nil {
							t.Fatalf("round %d, %s (%s): %v", round, d.name, status(d.Handle), err)
						}
					}
					h.shutdown()
					// The next life has a new second snapshot, over what the last one left.
					clear(medium[snapSize+cowSize:][:512])
				}
			}
		})
	}
}

// TestSnapshotCrashAtEveryRequest: the power fails at each request that the first
// exceptions cause, up to the second metadata area, over what an older store has
// left. The snapshot is what it was, and stays so when it goes on from there; one
// that has no room is what it was or invalid.
func TestSnapshotCrashAtEveryRequest(t *testing.T) {
	seed := snapSeed(t)
	medium := make([]byte, snapSize+2*cowSize)
	oldStore(medium[snapSize:][:cowSize])
	for kind, most := range map[string]int{"P 1": 20, "P 128": 2} { // 128 sectors: room for the metadata, and no more
		points := 0
		for done := false; !done; points++ {
			h := &snapHistory{t: t, kind: kind, rnd: rand.New(rand.NewPCG(seed, uint64(points)))}
			h.boot(medium, points+1)
			done = true
			for i, n := range []int{16, 14, 1, 1, 2, 1} {
				r := block.Request{Op: block.OpWrite, Off: int64(i) << 13, Len: int64(n) << 9, Data: block.Bytes(fill(1, n<<9))}
				if err := h.devs[0].Do(t.Context(), r); err != nil {
					if done = false; !h.disk.dead() {
						t.Fatal(err)
					}
					break
				}
			}
			h.disk.mu.Lock()
			h.disk.left = 0 // at the end, if not before
			h.disk.mu.Unlock()
			h.devs[0].Do(t.Context(), block.Request{Op: block.OpFlush})
			h.shutdown()

			what := fmt.Sprintf("%s: the power fails at request %d", kind, points)
			for range 6 {
				medium := h.disk.Crash(h.rnd.Uint64())
				for _, life := range []string{"", ", and then goes on"} {
					w, disk := dmtest.New(t), dmtest.NewRAM(int64(len(medium)))
					disk.Set(medium)
					w.Leaf("disk", disk, nil)
					snapTables(w)
					origin, snap := w.Map("origin", "0 128 snapshot-origin o"), w.Map("s0", "0 128 snapshot o c0 "+kind)
					if !strings.HasSuffix(status(snap), "Invalid") {
						sameRead(t, what+life, snap, 0, make([]byte, snapSize))
					} else if kind == "P 1" {
						t.Errorf("%s%s: invalid", what, life)
					}
					for _, n := range []int{1, 32} {
						dmtest.Write(t, origin, int64(n)<<9, fill(2, n<<9))
					}
					remove(t, w, "s0", snap)
					medium = disk.Bytes()
				}
			}
			if t.Failed() {
				return
			}
		}
		if points < most {
			t.Errorf("%s: the power failed at %d requests, want at least %d", kind, points, most)
		}
	}
}

// oldStore fills a COW device with what could be the metadata of a store that
// was there before, behind a first sector of zeroes.
func oldStore(b []byte) {
	for i := 512; i < len(b); i += 16 {
		binary.LittleEndian.PutUint64(b[i:], uint64(i/16%67))
		binary.LittleEndian.PutUint64(b[i+8:], uint64(2+i/16%29))
	}
}

func flushAll(t *testing.T, devs ...*snapDev) {
	t.Helper()
	for _, d := range devs {
		began := d.m.BeginFlush()
		if err := d.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
			t.Fatal(err)
		}
		d.m.EndFlush(began)
	}
}

// TestTransientSnapshotHistories is the same without the loss of power.
func TestTransientSnapshotHistories(t *testing.T) {
	seed := snapSeed(t)
	for round := range uint64(4) {
		h := &snapHistory{t: t, kind: "N 2", rnd: rand.New(rand.NewPCG(seed, round))}
		h.boot(make([]byte, snapSize+2*cowSize), 1<<40)
		h.run(40)
		h.add("s1", "0 128 snapshot o c1 N 4")
		h.run(150)
		for _, d := range h.devs {
			if err := d.m.Check(0, dmtest.Read(t, d, 0, snapSize)); err != nil {
				t.Errorf("round %d, %s: %v", round, d.name, err)
			}
		}
		h.shutdown()
	}
}
