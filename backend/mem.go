package backend

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"keyway/block"
	"keyway/internal/size"
)

func init() {
	Register(Type{
		Scheme: "mem", Usage: "mem:SIZE", Help: "sparse memory, gone when the device is closed",
		Open: openMem,
	})
}

const (
	memBlock      = 512
	memPhysical   = 4096
	memChunkShift = 16      // 64 KiB: 16 page faults at most to fill one, and 1/16384 of the size in states
	memMaxChunks  = 1 << 20 // beyond 64 GiB chunks grow, so that the states stay at 4 MiB
	memReleaseMax = 8 << 20 // bytes given back by one call, while writers of that range wait
)

// mem is a device in anonymous memory outside the Go heap: address space for
// all of it is reserved at once, pages come with the first write.
//
// A chunk that was never written, or was discarded, is a hole: it reads as
// zeroes without touching its memory. Requests that overlap in space and time
// have no order, as on any disk: each byte is that of one of them. Requests
// that follow each other do.
//
// Pages are committed by the first write, so memory may run out then, which
// ends the process: nothing can be returned.
type mem struct {
	size     int64
	readOnly bool
	data     []byte // the mapping, at least size bytes
	shift    uint   // log2 of the chunk size
	chunks   []atomic.Uint32
	gate     block.Gate // closed for good by Close
	close    sync.Once
}

// The state of a chunk: flags, and the number of writes inside. What must
// stay true: the memory of a chunk that is not allocated is zero, so that its
// first write uncovers zeroes. That is why only a chunk without writers is
// given back: a writer that finds it allocated, and copies after it was given
// back, would leave bytes that surface later.
const (
	memAllocated = 1 << 31
	memReleasing = 1 << 30
	memWriters   = memReleasing - 1
)

func openMem(_ context.Context, l Location, o Options) (block.Device, error) {
	n := o.Size
	if l.Place != "" {
		var err error
		if n, err = size.Parse(l.Place); err != nil {
			return nil, l.errorf("%v", err)
		}
		if o.Size != 0 && o.Size != n {
			return nil, l.errorf("the size is %d bytes here and %d bytes where the device is made: leave one out", n, o.Size)
		}
	}
	switch {
	case n == 0:
		return nil, l.errorf("memory needs a size")
	case n%memBlock != 0:
		return nil, l.errorf("a size of %d bytes is not a multiple of %d", n, memBlock)
	}
	return newMem(n, o.ReadOnly)
}

func newMem(n int64, readOnly bool) (*mem, error) {
	page := int64(unix.Getpagesize())
	room := (n + page - 1) / page * page
	if room < n || int64(int(room)) != room {
		return nil, fmt.Errorf("mem: %d bytes are more than the address space", n)
	}
	data, err := unix.Mmap(-1, 0, int(room), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mem: reserve %s of address space: %w: choose a smaller size, or allow it (vm.overcommit_memory, ulimit -v)",
			size.Format(n), err)
	}
	// Advice only: a core dump with the content of disks would be large, and is
	// nobody's business.
	_ = unix.Madvise(data, unix.MADV_DONTDUMP)
	m := &mem{size: n, readOnly: readOnly, data: data, shift: memChunkShift}
	for (n-1)>>m.shift >= memMaxChunks {
		m.shift++
	}
	m.chunks = make([]atomic.Uint32, (n-1)>>m.shift+1)
	return m, nil
}

var _ block.Memory = (*mem)(nil)

func (m *mem) Info() block.Info {
	return block.Info{
		Size: m.size, LogicalBlock: memBlock, PhysicalBlock: memPhysical,
		FUA: block.Native, Discard: block.Native, Zeroes: block.Native,
		ReadOnly: m.readOnly, NeverBlocks: true,
	}
}

// Do performs r.
//
// Hot: no allocation.
func (m *mem) Do(ctx context.Context, r block.Request) error {
	if err := block.CheckAt(&r, m.size, memBlock, m.readOnly); err != nil {
		return err
	}
	if r.Crypt.Active() {
		return block.ErrNoCrypto
	}
	// Only Close ever closes the gate, and for good.
	if m.gate.Enter(ctx, r.Lane, true) != nil {
		return block.ErrClosed
	}
	switch r.Op {
	case block.OpRead:
		m.read(r)
	case block.OpWrite:
		m.write(r)
	case block.OpDiscard, block.OpWriteZeroes:
		m.zero(r.Off, r.Len, r.Op == block.OpWriteZeroes && r.Flags&block.NoUnmap != 0)
	case block.OpFlush: // nothing is volatile that a flush could save
	}
	m.gate.Leave(r.Lane)
	return nil
}

// inChunk returns the chunk of off and how many of the n bytes from there on
// are in it.
func (m *mem) inChunk(off int64, n int) (*atomic.Uint32, int) {
	left := int64(1)<<m.shift - off&(1<<m.shift-1)
	return &m.chunks[off>>m.shift], int(min(int64(n), left))
}

func (m *mem) read(r block.Request) {
	off := r.Off
	for b := range r.Data.All() {
		for len(b) > 0 {
			c, n := m.inChunk(off, len(b))
			// A chunk that is given back while we copy reads as what it held
			// or as zeroes, both right for a read beside a discard.
			if allocated(c) {
				copy(b[:n], m.data[off:])
			} else {
				clear(b[:n])
			}
			b, off = b[n:], off+int64(n)
		}
	}
}

// allocated reports whether the memory of a chunk counts. One that is being
// given back reads as zeroes from the start, even if a writer that waits for
// it has set its flag: a discard that finds it so is done.
func allocated(c *atomic.Uint32) bool {
	return c.Load()&(memAllocated|memReleasing) == memAllocated
}

func (m *mem) write(r block.Request) {
	off := r.Off
	for b := range r.Data.All() {
		for len(b) > 0 {
			c, n := m.inChunk(off, len(b))
			enterChunk(c)
			copy(m.data[off:], b[:n])
			c.Add(^uint32(0))
			b, off = b[n:], off+int64(n)
		}
	}
}

// enterChunk makes the chunk allocated and counts the caller as a writer in it.
func enterChunk(c *atomic.Uint32) {
	for c.Add(1)&(memAllocated|memReleasing) != memAllocated {
		// While we are counted nobody starts to give the chunk back; whoever
		// is at it needs microseconds.
		if c.Or(memAllocated)&memReleasing == 0 {
			return
		}
		c.Add(^uint32(0))
		runtime.Gosched()
	}
}

// Lend returns the medium's bytes. A hole is not lent to a reader: while its
// memory is being given back it reads as zeroes but does not hold them yet.
//
// Hot: no allocation.
func (m *mem) Lend(lane uint16, off, n int64, write bool) ([]byte, error) {
	r := block.Request{Op: block.OpDiscard, Off: off, Len: n}
	if err := block.CheckAt(&r, m.size, memBlock, write && m.readOnly); err != nil {
		return nil, err
	}
	if m.gate.Enter(context.Background(), lane, true) != nil {
		return nil, block.ErrClosed
	}
	for i := off >> m.shift; i<<m.shift < off+n; i++ {
		switch {
		case write:
			enterChunk(&m.chunks[i])
		case !allocated(&m.chunks[i]):
			m.gate.Leave(lane)
			return nil, block.ErrNotSupported
		}
	}
	return m.data[off:][:n:n], nil
}

// Return ends a Lend.
func (m *mem) Return(lane uint16, off, n int64, write bool) {
	if write {
		for i := off >> m.shift; i<<m.shift < off+n; i++ {
			m.chunks[i].Add(^uint32(0))
		}
	}
	m.gate.Leave(lane)
}

// zero makes n bytes read as zeroes and, unless keep, gives back the memory of
// the whole chunks among them. With keep they are allocated afterwards.
func (m *mem) zero(off, n int64, keep bool) {
	end := off + n
	for off < end {
		c, k := m.inChunk(off, int(min(end-off, 1<<m.shift)))
		whole := k == 1<<m.shift || off&(1<<m.shift-1) == 0 && off+int64(k) == m.size
		switch {
		case keep:
			enterChunk(c)
			clear(m.data[off:][:k])
			c.Add(^uint32(0))
		case !allocated(c): // zero already
		case whole:
			off = m.release(off, end)
			continue
		default:
			// Once more a write, but one that allocates nothing: a chunk that
			// becomes a hole here stays one.
			enterChunk(c)
			clear(m.data[off:][:k])
			c.Add(^uint32(0))
		}
		off += int64(k)
	}
}

// release gives back the run of allocated whole chunks that begins at off, as
// far as end and memReleaseMax allow, and returns where it ended.
func (m *mem) release(off, end int64) int64 {
	first := int(off >> m.shift)
	most := max(1, memReleaseMax>>m.shift)
	last := first
	for last < len(m.chunks) && last-first < most {
		stop := min(int64(last+1)<<m.shift, m.size)
		if stop > end || !m.chunks[last].CompareAndSwap(memAllocated, memReleasing) {
			break
		}
		last++
	}
	if last == first { // somebody writes into it
		stop := min(int64(first+1)<<m.shift, m.size)
		enterChunk(&m.chunks[first])
		clear(m.data[off:stop])
		m.chunks[first].Add(^uint32(0))
		return stop
	}
	run := m.data[off:min(int64(last)<<m.shift, int64(len(m.data)))]
	err := unix.Madvise(run, unix.MADV_DONTNEED)
	if err != nil {
		clear(run) // locked memory (mlockall) is not given back
	}
	for i := first; i < last; i++ {
		// Writers that wait have set memAllocated and left their count, in
		// any moment: take away only our own bit, and theirs, which they set
		// again.
		m.chunks[i].And(^uint32(memReleasing | memAllocated))
	}
	return min(int64(last)<<m.shift, m.size)
}

// Extents tells holes from data by chunks.
func (m *mem) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return func(yield func(block.Extent, error) bool) {
		if err := block.CheckAt(&block.Request{Op: block.OpDiscard, Off: off, Len: n}, m.size, 1, false); err != nil {
			yield(block.Extent{}, err)
			return
		}
		if m.gate.Enter(ctx, 0, true) != nil {
			yield(block.Extent{}, block.ErrClosed)
			return
		}
		m.gate.Leave(0) // the states are Go memory: Close does not take them away
		for end := off + n; off < end; {
			hole := !allocated(&m.chunks[off>>m.shift])
			stop := off
			for stop < end && !allocated(&m.chunks[stop>>m.shift]) == hole {
				stop = (stop>>m.shift + 1) << m.shift
			}
			// The second look may differ from the first: at least one chunk
			// is passed each time.
			stop = min(max(stop, (off>>m.shift+1)<<m.shift), end)
			if !yield(block.Extent{Off: off, Len: stop - off, Hole: hole, Zero: hole}, nil) {
				return
			}
			off = stop
		}
	}
}

// Close waits for requests in progress and gives the memory back.
func (m *mem) Close() error {
	var err error
	m.close.Do(func() {
		if err = m.gate.Close(context.Background()); err == nil {
			err = unix.Munmap(m.data)
		}
	})
	return err
}
