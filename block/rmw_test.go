package block_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyway/block"
	"keyway/internal/blocktest"
	"keyway/internal/model"
)

// A disk is plain memory with blocks of any size, refusing what does not fit.
// A mutex makes it safe for the race detector. before, if set, is called for
// each request, outside the lock.
type disk struct {
	info   block.Info
	lb     atomic.Int64
	before func(r block.Request) error

	mu     sync.Mutex
	mem    []byte
	closed bool
	ops    [5]int
}

func newDisk(size int64, logical int) *disk {
	d := &disk{info: block.Info{
		Size: size, PhysicalBlock: 4096, FUA: block.Native,
		Discard: block.Native, Zeroes: block.Native, NeverBlocks: true,
	}, mem: make([]byte, size)}
	d.lb.Store(int64(logical))
	return d
}

func (d *disk) Info() block.Info {
	i := d.info
	i.LogicalBlock = int(d.lb.Load())
	i.PhysicalBlock = max(i.PhysicalBlock, i.LogicalBlock)
	return i
}

func (d *disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *disk) Do(_ context.Context, r block.Request) error {
	if err := block.CheckAt(&r, d.info.Size, int(d.lb.Load()), d.info.ReadOnly); err != nil {
		return err
	}
	if r.Crypt.Active() {
		return block.ErrNoCrypto
	}
	if d.before != nil {
		if err := d.before(r); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return block.ErrClosed
	}
	d.ops[r.Op]++
	switch r.Op {
	case block.OpRead:
		r.Data.CopyFrom(d.mem[r.Off:])
	case block.OpWrite:
		r.Data.CopyTo(d.mem[r.Off:])
		if r.Flags&block.Scratch != 0 {
			r.Data.Clear()
		}
	case block.OpWriteZeroes:
		if r.Flags&block.FastZero != 0 {
			return block.ErrNotSupported
		}
		clear(d.mem[r.Off:][:r.Len])
	case block.OpDiscard:
		copy(d.mem[r.Off:r.Off+r.Len], garbage)
	}
	return nil
}

// garbage is what a discarded range holds; larger than any disk here.
var garbage = bytes.Repeat([]byte{0xdd}, 4<<20)

// count returns how many requests of each kind came since the last call.
func (d *disk) count() [5]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.ops
	d.ops = [5]int{}
	return n
}

func TestRMWConforms(t *testing.T) {
	for name, logical := range map[string]int{"512": 512, "4096": 4096, "65536": 65536} {
		t.Run(name, func(t *testing.T) {
			blocktest.Device(t, func(t *testing.T) block.Device { return block.RMW(newDisk(2<<20, logical)) }, blocktest.Options{
				FewBlocks: true,
				NoAllocs:  logical <= 4096,
				OpenReadOnly: func(t *testing.T) block.Device {
					d := newDisk(2<<20, logical)
					d.info.ReadOnly = true
					return block.RMW(d)
				},
			})
		})
	}
}

func TestRMWKeepsPromisesOfDurability(t *testing.T) {
	for _, logical := range []int{512, 4096} {
		blocktest.Durability(t, 64<<10, logical, func(t *testing.T, dev block.Device) block.Device { return block.RMW(dev) })
	}
}

// The suite's own check: a device that loses a flush must fail it.
func TestModelSeesALostFlush(t *testing.T) {
	leaf := model.NewDevice(block.Info{Size: 4096, LogicalBlock: 512})
	m := model.New(4096, 512)
	data := bytes.Repeat([]byte{1}, 512)
	c := m.Begin(0, data)
	if err := write(leaf, 0, 0, data); err != nil {
		t.Fatal(err)
	}
	c.End(true, false)
	m.EndFlush(m.BeginFlush()) // and the leaf hears nothing of it
	lost := false
	for seed := range uint64(20) {
		lost = lost || m.Legal(0, leaf.Crash(seed)) != nil
	}
	if !lost {
		t.Error("20 crashes without the flush all looked legal")
	}
}

func write(dev block.Device, f block.Flags, off int64, b []byte) error {
	return dev.Do(context.Background(), block.Request{Op: block.OpWrite, Flags: f, Off: off, Len: int64(len(b)), Data: block.Bytes(b)})
}

func TestRMWPassesAlignedRequestsAsTheyAre(t *testing.T) {
	d := newDisk(1<<20, 4096)
	dev := block.RMW(d)
	ctx := context.Background()
	buf := make([]byte, 8192)
	var got []block.Request
	d.before = func(r block.Request) error { got = append(got, r); return nil }
	for _, r := range []block.Request{
		{Op: block.OpWrite, Flags: block.Scratch | block.FUA, Lane: 9, Off: 4096, Len: 8192, Data: block.Bytes(buf)},
		{Op: block.OpRead, Flags: block.NoWait | block.Shared, Lane: 9, Off: 4096, Len: 8192, Data: block.Bytes(buf)},
		{Op: block.OpDiscard, Off: 4096, Len: 4096},
		{Op: block.OpWriteZeroes, Flags: block.NoUnmap, Off: 4096, Len: 4096},
		{Op: block.OpFlush, Flags: block.SkipDefaultKey},
	} {
		got = nil
		if err := dev.Do(ctx, r); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Op != r.Op || got[0].Flags != r.Flags || got[0].Off != r.Off || got[0].Len != r.Len || got[0].Lane != r.Lane {
			t.Errorf("%+v came down as %+v", r, got)
		}
	}
}

func TestRMWReadsOnlyWhatItMust(t *testing.T) {
	d := newDisk(1<<20, 4096)
	dev := block.RMW(d)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range d.mem {
		d.mem[i] = byte(rnd.Uint32())
	}
	for _, c := range []struct {
		op          block.Op
		off, n      int64
		reads, wrts int
	}{
		{block.OpWrite, 1, 1, 1, 1},        // inside one block
		{block.OpWrite, 0, 100, 1, 1},      // its beginning
		{block.OpWrite, 4000, 200, 2, 2},   // across two
		{block.OpWrite, 100, 8092, 1, 2},   // head and a block
		{block.OpWrite, 4096, 5000, 1, 2},  // a block and tail
		{block.OpWrite, 10, 20000, 2, 3},   // both ends
		{block.OpWrite, 4096, 8192, 0, 1},  // none
		{block.OpRead, 10, 20000, 3, 0},    // both ends and the middle
		{block.OpRead, 4096, 4097, 2, 0},   //
		{block.OpWriteZeroes, 5, 10, 1, 1}, // edges by writing
		{block.OpWriteZeroes, 4096, 4097, 1, 1},
	} {
		d.count()
		r := block.Request{Op: c.op, Off: c.off, Len: c.n}
		want := bytes.Clone(d.mem)
		if c.op.HasData() {
			b := bytes.Repeat([]byte{0x77}, int(c.n))
			r.Data = block.Bytes(b)
		}
		if c.op == block.OpWrite {
			copy(want[c.off:], bytes.Repeat([]byte{0x77}, int(c.n)))
		} else if c.op == block.OpWriteZeroes {
			clear(want[c.off:][:c.n])
		}
		if err := dev.Do(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		if n := d.count(); n[block.OpRead] != c.reads || n[block.OpWrite] != c.wrts {
			t.Errorf("%v of %d at %d: %d reads and %d writes, want %d and %d", c.op, c.n, c.off, n[block.OpRead], n[block.OpWrite], c.reads, c.wrts)
		}
		if !bytes.Equal(d.mem, want) {
			t.Errorf("%v of %d at %d: the medium is wrong", c.op, c.n, c.off)
		}
	}
	// A discard shrinks inward, to nothing if need be.
	for _, c := range [][3]int64{{1, 8191, 1}, {1, 4095, 0}, {4095, 4098, 1}, {5000, 10, 0}, {4096, 4096, 1}} {
		want := bytes.Clone(d.mem)
		first, end := (c[0]+4095)/4096*4096, (c[0]+c[1])/4096*4096
		for i := first; i < end; i++ {
			want[i] = 0xdd
		}
		d.count()
		if err := dev.Do(context.Background(), block.Request{Op: block.OpDiscard, Off: c[0], Len: c[1]}); err != nil {
			t.Fatal(err)
		}
		if n := d.count(); n[block.OpDiscard] != int(c[2]) || !bytes.Equal(d.mem, want) {
			t.Errorf("discard of %d at %d: %v requests, want %d", c[1], c[0], n, c[2])
		}
	}
}

func TestRMWFlagsOfUnalignedRequests(t *testing.T) {
	d := newDisk(1<<20, 4096)
	dev := block.RMW(d)
	var flags []block.Flags
	d.before = func(r block.Request) error {
		if r.Op == block.OpWrite {
			flags = append(flags, r.Flags&(block.FUA|block.SkipDefaultKey|block.Shared))
		}
		return nil
	}
	if err := write(dev, block.FUA|block.SkipDefaultKey|block.Shared, 10, make([]byte, 20000)); err != nil {
		t.Fatal(err)
	}
	for _, f := range flags {
		if f&(block.FUA|block.SkipDefaultKey) != block.FUA|block.SkipDefaultKey {
			t.Errorf("a part of a write with FUA and SkipDefaultKey has flags %#x", f)
		}
	}
	if len(flags) != 3 {
		t.Errorf("%d writes, want 3", len(flags))
	}

	before := bytes.Clone(d.mem)
	for _, r := range []block.Request{
		{Op: block.OpWrite, Off: 1, Len: 1, Data: block.Bytes([]byte{9})},
		{Op: block.OpWriteZeroes, Off: 1, Len: 9000},
	} {
		r.Flags |= block.NoWait
		if err := dev.Do(context.Background(), r); err != block.ErrWouldBlock {
			t.Errorf("unaligned %v with NoWait: %v", r.Op, err)
		}
	}
	for _, n := range []int64{10, 9000} {
		r := block.Request{Op: block.OpWriteZeroes, Flags: block.FastZero, Off: 1, Len: n}
		if err := dev.Do(context.Background(), r); !errors.Is(err, block.ErrNotSupported) {
			t.Errorf("unaligned zeroes that must be fast, on a device that cannot: %v", err)
		}
	}
	if !bytes.Equal(before, d.mem) {
		t.Error("a refused request changed the medium")
	}
}

// An aligned write that is under way when the first unaligned one comes must
// not be undone by the latter's old copy of the block.
func TestRMWFirstUnalignedWriteWaitsForAlignedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1<<20, 4096)
		dev := block.RMW(d)
		hold := make(chan struct{})
		d.before = func(r block.Request) error {
			if r.Op == block.OpWrite && r.Len == 4096 && r.Lane == 1 {
				<-hold
			}
			return nil
		}
		aligned := make(chan error, 1)
		go func() {
			aligned <- dev.Do(context.Background(), block.Request{Op: block.OpWrite, Lane: 1, Len: 4096, Data: block.Bytes(bytes.Repeat([]byte{1}, 4096))})
		}()
		synctest.Wait()

		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		unaligned := make(chan error, 2)
		try := func(ctx context.Context) {
			unaligned <- dev.Do(ctx, block.Request{Op: block.OpWrite, Off: 10, Len: 5, Data: block.Bytes([]byte("hello"))})
		}
		go try(ctx)
		synctest.Wait()
		cancel(cause)
		if err := <-unaligned; !errors.Is(err, cause) {
			t.Errorf("a cancelled wait: %v", err)
		}
		// The gate is open again for everybody.
		if err := write(dev, 0, 8192, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		go try(context.Background())
		synctest.Wait()
		if n := d.count(); n[block.OpRead] != 0 {
			t.Fatal("the unaligned write read the block while an aligned one was writing it")
		}
		close(hold)
		if err := <-aligned; err != nil {
			t.Fatal(err)
		}
		if err := <-unaligned; err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte{1}, 4096)
		copy(want[10:], "hello")
		if !bytes.Equal(d.mem[:4096], want) {
			t.Errorf("the block holds %q…", d.mem[:20])
		}
	})
}

// From then on a change waits for the ranges it overlaps, in order, and no other.
func TestRMWLocksRangesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1<<20, 4096)
		dev := block.RMW(d)
		if err := write(dev, 0, 1, []byte{1}); err != nil {
			t.Fatal(err)
		}
		hold := map[uint16]chan struct{}{1: make(chan struct{}), 2: make(chan struct{}), 3: make(chan struct{})}
		var mu sync.Mutex
		var order []uint16
		d.before = func(r block.Request) error {
			if r.Op == block.OpWrite && r.Lane > 0 {
				mu.Lock()
				order = append(order, r.Lane)
				mu.Unlock()
				if c := hold[r.Lane]; c != nil {
					<-c
				}
			}
			return nil
		}
		issue := func(ctx context.Context, lane uint16, off, n int64) chan error {
			done := make(chan error, 1)
			go func() {
				done <- dev.Do(ctx, block.Request{Op: block.OpWrite, Lane: lane, Off: off, Len: n, Data: block.Bytes(make([]byte, n))})
			}()
			synctest.Wait()
			return done
		}
		ctx := context.Background()
		one := issue(ctx, 1, 0, 8192)       // holds blocks 0, 1
		two := issue(ctx, 2, 4096+10, 4096) // waits: blocks 1, 2
		cause := errors.New("enough")
		cancelled, cancel := context.WithCancelCause(ctx)
		four := issue(cancelled, 4, 8192, 4096) // waits behind two: block 2
		three := issue(ctx, 3, 12288, 4096)     // free: block 3
		five := issue(ctx, 5, 8192, 8192)       // waits behind all: blocks 2, 3
		if len(order) != 2 || order[0] != 1 || order[1] != 3 {
			t.Fatalf("requests at the device: %v, want 1 and 3", order)
		}
		if err := dev.Do(ctx, block.Request{Op: block.OpWrite, Flags: block.NoWait, Len: 4096, Data: block.Bytes(make([]byte, 4096))}); err != block.ErrWouldBlock {
			t.Errorf("an aligned write with NoWait in a locked range: %v", err)
		}
		cancel(cause)
		if err := <-four; !errors.Is(err, cause) {
			t.Errorf("a cancelled waiter: %v", err)
		}
		close(hold[3])
		if err := <-three; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if len(order) != 2 {
			t.Fatalf("5 overtook 2, which it overlaps: %v", order)
		}
		close(hold[1])
		if err := <-one; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		close(hold[2])
		for _, c := range []chan error{two, five} {
			if err := <-c; err != nil {
				t.Error(err)
			}
		}
		if last := order[len(order)-1]; last != 5 {
			t.Errorf("order at the device %v, want 5 last", order)
		}
	})
}

// Two changes of one block exclude each other even if their bytes do not meet.
func TestRMWLocksWholeBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1<<20, 4096)
		dev := block.RMW(d)
		hold := make(chan struct{})
		d.before = func(r block.Request) error {
			if r.Op == block.OpWrite && r.Lane == 1 {
				<-hold
			}
			return nil
		}
		done := make(chan error, 3)
		issue := func(lane uint16, off int64, text string) {
			go func() {
				done <- dev.Do(context.Background(), block.Request{
					Op: block.OpWrite, Lane: lane, Off: off, Len: int64(len(text)), Data: block.Bytes([]byte(text)),
				})
			}()
			synctest.Wait()
		}
		issue(1, 10, "first")  // has read the block, and waits to write it
		issue(2, 20, "second") // must not read it meanwhile
		issue(3, 4090, "and beyond")
		close(hold)
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		want := make([]byte, 8192)
		copy(want[10:], "first")
		copy(want[20:], "second")
		copy(want[4090:], "and beyond")
		if !bytes.Equal(d.mem[:8192], want) {
			t.Errorf("lost a write: %q … %q", d.mem[10:30], d.mem[4090:4100])
		}
	})
}

// Whoever waited behind a waiter that gave up need not wait any longer.
func TestRMWCancelledWaiterLetsOthersPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1<<20, 4096)
		dev := block.RMW(d)
		if err := write(dev, 0, 1, []byte{1}); err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		d.before = func(r block.Request) error {
			if r.Lane == 1 {
				<-hold
			}
			return nil
		}
		issue := func(ctx context.Context, lane uint16, off, n int64) chan error {
			done := make(chan error, 1)
			go func() {
				done <- dev.Do(ctx, block.Request{Op: block.OpWrite, Lane: lane, Off: off, Len: n, Data: block.Bytes(make([]byte, n))})
			}()
			synctest.Wait()
			return done
		}
		one := issue(context.Background(), 1, 0, 4096)
		ctx, cancel := context.WithCancel(context.Background())
		two := issue(ctx, 2, 0, 8192)
		three := issue(context.Background(), 3, 4096, 4096)
		if len(three) != 0 {
			t.Fatal("a later request overtook one that it overlaps")
		}
		cancel()
		if err := <-two; !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled waiter: %v", err)
		}
		if err := <-three; err != nil {
			t.Error(err)
		}
		close(hold)
		if err := <-one; err != nil {
			t.Error(err)
		}
	})
}

// A write that begins anew in the middle, because the block size has grown,
// needs its data as it was.
func TestRMWKeepsDataForAnotherTry(t *testing.T) {
	d := newDisk(1<<20, 512)
	dev := block.RMW(d)
	d.before = func(r block.Request) error {
		if r.Op == block.OpWrite && r.Len == 8192 {
			d.lb.Store(4096)
		}
		return nil
	}
	data := bytes.Repeat([]byte("keep"), (100+8192+100)/4)
	want := make([]byte, 3*8192)
	copy(want[4096-100:], data)
	if err := write(dev, block.Scratch, 4096-100, data); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.mem[:len(want)], want) {
		t.Error("the medium is wrong")
	}
}

// The block size beneath may change at any moment, as by a table reload: no
// request fails and no byte is lost.
func TestRMWFollowsTheBlockSize(t *testing.T) {
	d := newDisk(256<<10, 512)
	dev := block.RMW(d)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond): // a reload takes longer
				d.lb.Store(int64(512 << (i % 4)))
			}
		}
	})
	var workers sync.WaitGroup
	const n = 64 << 10
	for w := range int64(4) {
		workers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 3))
			mine := make([]byte, n)
			for i := range 2000 {
				off := rnd.Int64N(n - 1)
				k := 1 + rnd.Int64N(min(n-off, 9000))
				if i%3 == 0 {
					off, k = off/512*512, 512
				}
				fill := bytes.Repeat([]byte{byte(i)}, int(k))
				copy(mine[off:], fill)
				if err := write(dev, block.Scratch, w*n+off, fill); err != nil {
					t.Errorf("write of %d at %d: %v", k, w*n+off, err)
					return
				}
			}
			got := make([]byte, n)
			if err := dev.Do(context.Background(), block.Request{Op: block.OpRead, Off: w * n, Len: n, Data: block.Bytes(got)}); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(got, mine) {
				t.Errorf("worker %d: lost a write", w)
			}
		})
	}
	workers.Wait()
	close(stop)
	wg.Wait()
}

func BenchmarkRMW(b *testing.B) {
	null := nullDevice{}
	for _, c := range []struct {
		name string
		dev  block.Device
	}{{"bare", null}, {"rmw", block.RMW(null)}} {
		for _, op := range []block.Op{block.OpRead, block.OpWrite} {
			b.Run(c.name+"/"+op.String(), func(b *testing.B) {
				buf := make([]byte, 4096)
				r := block.Request{Op: op, Len: 4096, Data: block.Bytes(buf)}
				b.ReportAllocs()
				for b.Loop() {
					if err := c.dev.Do(context.Background(), r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

type nullDevice struct{}

func (nullDevice) Do(context.Context, block.Request) error { return nil }
func (nullDevice) Info() block.Info                        { return block.Info{Size: 1 << 30, LogicalBlock: 4096} }
func (nullDevice) Close() error                            { return nil }
