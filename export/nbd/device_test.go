package nbd

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"testing"

	"keyway/block"
)

// memory is a device for tests: memory whose holes, faults and waits a test
// decides.
type memory struct {
	info block.Info
	gate block.Gate

	mu    sync.Mutex // guards what follows
	data  []byte
	holes map[int64]bool // blocks of 4 KiB that are holes

	fail    atomic.Pointer[error] // every request fails with it
	blocks  atomic.Bool           // NoWait never succeeds
	refused atomic.Int64          // requests that NoWait turned away
	flushes atomic.Int64
	inside  atomic.Int64 // requests in Do
}

func newMemory(size int64) *memory {
	m := &memory{data: make([]byte, size), holes: make(map[int64]bool)}
	m.info = block.Info{
		Size: size, LogicalBlock: 512, PhysicalBlock: 4096,
		FUA: block.Emulated, Discard: block.Native, Zeroes: block.Native, VolatileCache: true,
	}
	for b := range size / 4096 {
		m.holes[b] = true
	}
	return m
}

func (m *memory) Info() block.Info { return m.info }
func (m *memory) Close() error     { return nil }

func (m *memory) Do(ctx context.Context, r block.Request) error {
	m.inside.Add(1)
	defer m.inside.Add(-1)
	if r.NoWait() && m.blocks.Load() {
		m.refused.Add(1)
		return block.ErrWouldBlock
	}
	if err := m.gate.Enter(ctx, r.Lane, r.NoWait()); err != nil {
		return err
	}
	defer m.gate.Leave(r.Lane)
	if err := m.fail.Load(); err != nil {
		return *err
	}
	if err := block.CheckAt(&r, m.info.Size, m.info.LogicalBlock, m.info.ReadOnly); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.data[r.Off : r.Off+r.Len]
	switch r.Op {
	case block.OpRead:
		r.Data.CopyFrom(at)
	case block.OpWrite:
		r.Data.CopyTo(at)
		if r.Flags&block.Scratch != 0 { // as a cipher does
			for b := range r.Data.All() {
				for i := range b {
					b[i] ^= 0xff
				}
			}
		}
		for b := r.Off / 4096; b*4096 < r.Off+r.Len; b++ {
			delete(m.holes, b)
		}
	case block.OpFlush:
		m.flushes.Add(1)
	case block.OpWriteZeroes, block.OpDiscard:
		if r.Op == block.OpWriteZeroes && m.info.Zeroes == block.None {
			return block.ErrNotSupported
		}
		clear(at)
		for b := (r.Off + 4095) / 4096; (b+1)*4096 <= r.Off+r.Len; b++ {
			if r.Flags&block.NoUnmap == 0 {
				m.holes[b] = true
			}
		}
	}
	return nil
}

func (m *memory) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return func(yield func(block.Extent, error) bool) {
		if err := m.gate.Enter(ctx, 0, false); err != nil {
			yield(block.Extent{}, err)
			return
		}
		defer m.gate.Leave(0)
		for end := off + n; off < end; {
			to := min((off/4096+1)*4096, end)
			m.mu.Lock()
			h := m.holes[off/4096]
			m.mu.Unlock()
			if !yield(block.Extent{Off: off, Len: to - off, Hole: h, Zero: h}, nil) {
				return
			}
			off = to
		}
	}
}

// dense hides what memory knows about holes.
type dense struct{ *memory }

func (dense) Extents() {}

// suspend closes the device's gate until the test ends or resume is called.
func suspend(t *testing.T, m *memory) (resume func()) {
	t.Helper()
	if err := m.gate.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.gate.Open)
	return m.gate.Open
}
