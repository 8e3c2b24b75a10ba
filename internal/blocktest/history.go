package blocktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	"unsafe"

	"keyway/block"
	"keyway/internal/model"
	"keyway/internal/race"
)

const (
	historyWorkers = 4
	historyTime    = 100 * time.Millisecond
)

// reservations keeps requests that run side by side from overlapping, so that
// each read has one right answer. Neighbours are welcome: they share chunks,
// pages and physical blocks.
type reservations struct {
	mu   sync.Mutex
	held []span
	free sync.Cond
}

func newReservations() *reservations {
	r := &reservations{}
	r.free.L = &r.mu
	return r
}

func (r *reservations) take(s span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.overlaps(s) {
		r.free.Wait()
	}
	r.held = append(r.held, s)
}

func (r *reservations) overlaps(s span) bool {
	for _, h := range r.held {
		if s.off < h.off+h.n && h.off < s.off+s.n {
			return true
		}
	}
	return false
}

func (r *reservations) give(s span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, h := range r.held {
		if h == s {
			r.held[i] = r.held[len(r.held)-1]
			r.held = r.held[:len(r.held)-1]
			break
		}
	}
	r.free.Broadcast()
}

// oddBlock is the model's block for a device that takes any byte: single ones
// would be slow and prove no more.
const oddBlock = 8

// testHistory runs random requests side by side against the model.
func testHistory(t *testing.T, s *suite) {
	n := min(s.size, 1<<20)
	s0 := seed(t)
	unit := max(s.unit, oddBlock)
	m := model.New(n, int(unit))
	if err := doRange(s.dev, block.OpWriteZeroes, 0, 0, n); err != nil {
		t.Fatal(err)
	}
	h := &history{dev: s.dev, m: m, res: newReservations(), size: n, unit: unit, seed: s0}
	h.run(t, time.Now().Add(historyTime))
	if err := m.Check(0, mustRead(t, s.dev, 0, n)); err != nil {
		t.Errorf("at the end: %v", err)
	}
}

type history struct {
	dev        block.Device
	m          *model.Disk
	res        *reservations
	size, unit int64
	seed       uint64
	ops        int // per worker, 0: until the deadline
}

func (h *history) run(t *testing.T, deadline time.Time) {
	var wg sync.WaitGroup
	for w := range historyWorkers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(h.seed, uint64(w)))
			for i := 0; ; i++ {
				if h.ops > 0 && i == h.ops || h.ops == 0 && time.Now().After(deadline) {
					return
				}
				if err := h.step(rnd, uint16(w)); err != nil {
					t.Errorf("worker %d, request %d: %v", w, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// step makes one random request.
func (h *history) step(rnd *rand.Rand, lane uint16) error {
	blocks := h.size / h.unit
	n := 1 + rnd.Int64N(8)
	if rnd.IntN(20) == 0 {
		n = 1 + rnd.Int64N(blocks/2)
	}
	at := span{rnd.Int64N(blocks-n+1) * h.unit, n * h.unit}
	r := block.Request{Lane: lane, Off: at.off, Len: at.n}
	if rnd.IntN(4) == 0 {
		r.Flags |= block.NoWait
	}
	kind := rnd.IntN(100)
	if kind < 3 {
		return h.flush(r)
	}
	h.res.take(at)
	defer h.res.give(at)
	switch {
	case kind < 45:
		r.Op = block.OpRead
		buf := make([]byte, at.n)
		r.Data = h.data(rnd, buf)
		if err := h.do(r); err != nil {
			return err
		}
		if err := h.m.Check(at.off, buf); err != nil {
			return fmt.Errorf("%d bytes at %d: %w", at.n, at.off, err)
		}
		return nil
	case kind < 90:
		r.Op = block.OpWrite
		buf := pattern(rnd.Uint64(), at.n)
		r.Data = h.data(rnd, buf)
		if rnd.IntN(2) == 0 {
			r.Flags |= block.Scratch
		}
		r.Flags |= h.fua(rnd)
		return h.change(h.m.Begin(at.off, buf), r)
	case kind < 97:
		r.Op = block.OpWriteZeroes
		r.Flags |= h.fua(rnd)
		if rnd.IntN(2) == 0 {
			r.Flags |= block.NoUnmap
		}
		return h.change(h.m.BeginZero(at.off, at.n), r)
	}
	if h.dev.Info().Discard == block.None {
		return nil
	}
	r.Op = block.OpDiscard
	return h.change(h.m.BeginDiscard(at.off, at.n), r)
}

func (h *history) fua(rnd *rand.Rand) block.Flags {
	if rnd.IntN(40) == 0 {
		return block.FUA
	}
	return 0
}

func (h *history) data(rnd *rand.Rand, b []byte) block.Segments {
	if rnd.IntN(2) == 0 {
		return scatter(b)
	}
	return block.Bytes(b)
}

func (h *history) change(c *model.Change, r block.Request) error {
	err := h.do(r)
	c.End(err == nil, r.Flags&block.FUA != 0)
	return err
}

func (h *history) flush(r block.Request) error {
	began := h.m.BeginFlush()
	err := h.do(block.Request{Op: block.OpFlush, Lane: r.Lane, Flags: r.Flags})
	if err == nil {
		h.m.EndFlush(began)
	}
	return err
}

// do performs r and, where it would block, once more.
func (h *history) do(r block.Request) error {
	// A device without FUA leaves it to its callers.
	perform := h.dev.Do
	if r.Flags&block.FUA != 0 && h.dev.Info().FUA == block.None {
		perform = func(ctx context.Context, r block.Request) error { return block.EmulateFUA(ctx, h.dev, r) }
	}
	err := perform(context.Background(), r)
	if errors.Is(err, block.ErrWouldBlock) && r.NoWait() {
		r.Flags &^= block.NoWait
		err = perform(context.Background(), r)
	}
	if err != nil {
		return fmt.Errorf("%v of %d bytes at %d, flags %#x: %w", r.Op, r.Len, r.Off, r.Flags, err)
	}
	return nil
}

// Durability tests that a stack keeps what a flush or FUA promised: it runs a
// history on a device with a volatile cache, cuts the power in the middle,
// and looks whether what is then read through a new stack is possible. The
// leaf has size bytes; build puts the stack on it.
func Durability(t *testing.T, size int64, leafBlock int, build func(t *testing.T, dev block.Device) block.Device) {
	s0 := seed(t)
	for _, fua := range []block.Support{block.None, block.Native} {
		t.Run("LeafFUA="+fua.String(), func(t *testing.T) {
			rounds := uint64(20)
			switch {
			case race.Enabled:
				rounds = 2
			case size > 256<<10:
				rounds = 5
			}
			for round := range rounds {
				info := block.Info{Size: size, LogicalBlock: leafBlock, FUA: fua}
				leaf := model.NewDevice(info)
				dev := build(t, leaf)
				n, unit := dev.Info().Size, max(int64(dev.Info().LogicalBlock), oddBlock)
				// A block of the stack may be torn between those of the leaf.
				m := model.New(n, min(int(unit), leafBlock))
				if err := doRange(dev, block.OpWriteZeroes, block.FUA, 0, n); err != nil { // the stack may encrypt
					t.Fatal(err)
				}
				m.BeginZero(0, n).End(true, true)
				h := &history{dev: dev, m: m, res: newReservations(), size: n, unit: unit, seed: s0 + round, ops: 30}
				h.run(t, time.Time{})
				medium := leaf.Crash(s0 + round)
				after := model.NewDevice(info)
				mustWrite(t, after, 0, medium)
				if err := m.Legal(0, mustRead(t, build(t, after), 0, n)); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
		})
	}
}

// aligned returns n bytes on a page, as O_DIRECT wants them.
func aligned(n int64) []byte {
	b := make([]byte, n+4096)
	off := -uintptr(unsafe.Pointer(&b[0])) & 4095
	return b[off : int64(off)+n : int64(off)+n]
}
