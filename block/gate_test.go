package block_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"unsafe"

	"keyway/block"
)

// goErr runs f beside the test and returns where its error will be.
func goErr(f func() error) chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	synctest.Wait()
	return c
}

func pending(c chan error) bool {
	synctest.Wait()
	return len(c) == 0
}

func TestGateZeroValueIsOpen(t *testing.T) {
	var g block.Gate
	for lane := range uint16(100) { // more lanes than shards
		if err := g.Enter(context.Background(), lane, lane%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	if g.Inside() != 100 || g.Closed() || g.Waiting() != 0 {
		t.Errorf("inside %d, closed %v, waiting %d", g.Inside(), g.Closed(), g.Waiting())
	}
	for lane := range uint16(100) {
		g.Leave(lane)
	}
	if g.Inside() != 0 {
		t.Errorf("inside %d after all have left", g.Inside())
	}
	g.Open() // of an open gate: nothing
}

func TestGateCloseWaitsForAllInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g block.Gate
		for _, lane := range []uint16{0, 1, 33, 65535} {
			if err := g.Enter(t.Context(), lane, false); err != nil {
				t.Fatal(err)
			}
		}
		closed := goErr(func() error { return g.Close(context.Background()) })
		for _, lane := range []uint16{65535, 0, 33, 1} {
			if !pending(closed) {
				t.Fatalf("Close returned with %d inside", g.Inside())
			}
			g.Leave(lane)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if !g.Closed() {
			t.Error("not closed")
		}
		if err := g.Close(context.Background()); err != nil {
			t.Errorf("closing a closed gate: %v", err)
		}
	})
}

func TestGateAdmitsAfterOpenAndNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g block.Gate
		if err := g.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := g.Enter(context.Background(), 0, true); err != block.ErrWouldBlock {
			t.Errorf("nowait at a closed gate: %v", err)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		gives := goErr(func() error { return g.Enter(ctx, 3, false) })
		waits := goErr(func() error { return g.Enter(context.Background(), 3, false) })
		if !pending(gives) || !pending(waits) || g.Waiting() != 2 {
			t.Fatalf("waiting %d, want 2", g.Waiting())
		}
		cancel(cause)
		if err := <-gives; !errors.Is(err, cause) {
			t.Errorf("a cancelled Enter: %v, want the cause", err)
		}
		if !pending(waits) || g.Inside() != 0 {
			t.Fatalf("inside %d a closed gate", g.Inside())
		}
		g.Open()
		if err := <-waits; err != nil || g.Inside() != 1 || g.Waiting() != 0 {
			t.Errorf("after Open: %v, inside %d, waiting %d", err, g.Inside(), g.Waiting())
		}
		g.Leave(3)
	})
}

// TestGateCloseThatGivesUpAdmitsNobodyUntilOpen: the caller can count who is inside.
func TestGateCloseThatGivesUpAdmitsNobodyUntilOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g block.Gate
		if err := g.Enter(context.Background(), 0, false); err != nil {
			t.Fatal(err)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		closed := goErr(func() error { return g.Close(ctx) })
		entered := goErr(func() error { return g.Enter(context.Background(), 1, false) })
		if !pending(closed) || !pending(entered) {
			t.Fatal("neither may be done yet")
		}
		cancel(cause)
		if err := <-closed; !errors.Is(err, cause) {
			t.Errorf("Close: %v, want the cause", err)
		}
		if !pending(entered) || g.Inside() != 1 {
			t.Errorf("%d inside a gate whose Close has given up, want 1", g.Inside())
		}
		g.Open()
		if err := <-entered; err != nil || g.Closed() {
			t.Errorf("the gate is not open again: %v", err)
		}
		g.Leave(0)
		g.Leave(1)
		if err := g.Close(context.Background()); err != nil { // an old notice must not confuse it
			t.Fatal(err)
		}
		if g.Inside() != 0 {
			t.Errorf("closed with %d inside", g.Inside())
		}
	})
}

// What the gate guards has one owner: whoever is inside, or whoever closed it.
func TestGateStress(t *testing.T) {
	var g block.Gate
	var guarded atomic.Int64 // negative: the closer has it
	ctx := context.Background()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var passed atomic.Int64
	for lane := range uint16(8) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := g.Enter(ctx, lane, lane%4 == 0); err != nil {
					continue
				}
				if guarded.Add(1) <= 0 {
					t.Error("inside a closed gate")
				}
				passed.Add(1)
				guarded.Add(-1)
				g.Leave(lane)
			}
		})
	}
	const owner = -1 << 40
	for i := 0; i < 2000 || passed.Load() < 1000; i++ {
		if err := g.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if !guarded.CompareAndSwap(0, owner) {
			t.Fatalf("closed with somebody inside: %d", guarded.Load())
		}
		guarded.Store(0)
		g.Open()
	}
	close(stop)
	wg.Wait()
}

func TestGateCounters(t *testing.T) {
	var g block.Gate
	for lane := range uint16(64) {
		g.Count(lane, block.OpWrite, 4096, block.NoContext)
		g.Count(lane, block.OpFlush, 0, block.NoContext)
	}
	c := g.Counters()
	if c.Ops[block.OpWrite] != 64 || c.Bytes[block.OpWrite] != 64*4096 || c.Ops[block.OpFlush] != 64 || c.Ops[block.OpRead] != 0 {
		t.Errorf("%+v", c)
	}
}

// TestGateCountsWhoTransforms: of reads and writes, how many engines did and how many
// software; together they are all with a context.
func TestGateCountsWhoTransforms(t *testing.T) {
	var g block.Gate
	want := block.Counters{}
	for op := range block.Op(5) {
		for by, n := range map[block.Service]int{block.NoContext: 1, block.ByEngine: 10, block.BySoftware: 100} {
			if by != block.NoContext && op > block.OpWrite {
				continue
			}
			for i := range n {
				g.Count(uint16(i), op, 512, by)
			}
			want.Ops[op] += uint64(n)
			want.Bytes[op] += uint64(n * 512)
		}
	}
	want.Native, want.Software = [2]uint64{10, 10}, [2]uint64{100, 100}
	if got := g.Counters(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if size := unsafe.Sizeof(g); size > 32*128+64 {
		t.Errorf("a gate has %d bytes: its shards are no longer pairs of cache lines", size)
	}
}

func TestGateAllocatesNothing(t *testing.T) {
	var g block.Gate
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() { _ = g.Enter(ctx, 1, false); g.Leave(1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGate(b *testing.B) {
	var g block.Gate
	ctx := context.Background()
	for b.Loop() {
		_ = g.Enter(ctx, 1, false)
		g.Leave(1)
	}
}
