package backend

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"keyway/block"
)

func init() {
	Register(Type{
		Scheme: "file", Usage: "file:PATH", Help: "a regular file or a block device",
		Options: []Option{{
			Name: "direct", Kind: Bool, Default: "0",
			Help: "pass the page cache by (O_DIRECT)",
		}},
		Open: openFile,
	})
}

// file is a regular file or a block device.
//
// What the page cache took is volatile until fdatasync. A failed fdatasync is
// final: the kernel has then marked the lost pages clean, and a second call
// would succeed without them, so every later flush answers the same error
// until the device is opened again.
type file struct {
	path          string
	fd            int
	size          int64 // bytes in reach, a multiple of logical
	logical       int
	physical      int
	minIO, optIO  int
	readOnly      bool
	blockDev      bool
	direct        bool
	memMask       uintptr // direct: bits of an address that must be zero
	made          bool    // by opening it
	gate          block.Gate
	close         sync.Once
	lost          atomic.Pointer[error] // of the first failed flush
	noNowaitRead  atomic.Bool           // the file system has no RWF_NOWAIT for it
	noNowaitWrite atomic.Bool
	noDiscard     atomic.Bool // nor holes, or no BLKDISCARD
	noUnmapZeroes atomic.Bool // no FALLOC_FL_PUNCH_HOLE
	noKeepZeroes  atomic.Bool // no FALLOC_FL_ZERO_RANGE
}

func (f *file) Info() block.Info {
	i := block.Info{
		Size: f.size, LogicalBlock: f.logical, PhysicalBlock: f.physical, MinIO: f.minIO, OptIO: f.optIO,
		FUA: block.Native, Discard: block.Native, Zeroes: block.Native,
		VolatileCache: !f.readOnly, ReadOnly: f.readOnly,
		WritesBlock: f.direct || f.noNowaitWrite.Load(),
	}
	if f.noDiscard.Load() {
		i.Discard = block.None
	}
	if f.noUnmapZeroes.Load() && f.noKeepZeroes.Load() {
		i.Zeroes = block.Emulated
	}
	return i
}

// Do performs r.
//
// Hot: no allocation for contiguous data.
func (f *file) Do(ctx context.Context, r block.Request) error {
	if err := block.CheckAt(&r, f.size, f.logical, f.readOnly); err != nil {
		return err
	}
	if r.Crypt.Active() {
		return block.ErrNoCrypto
	}
	if r.NoWait() && f.mayBlock(r) {
		return block.ErrWouldBlock
	}
	// Only Close ever closes the gate, and for good.
	if f.gate.Enter(ctx, r.Lane, true) != nil {
		return block.ErrClosed
	}
	err := f.do(ctx, r)
	f.gate.Leave(r.Lane)
	return err
}

// mayBlock reports whether r may block whatever flags the system call has.
// With O_DIRECT even RWF_NOWAIT waits for the disk, only not for its queue.
func (f *file) mayBlock(r block.Request) bool {
	switch r.Op {
	case block.OpRead:
		return f.direct || f.noNowaitRead.Load()
	case block.OpWrite:
		return f.direct || r.Flags&block.FUA != 0 || f.noNowaitWrite.Load()
	}
	return true
}

func (f *file) do(ctx context.Context, r block.Request) error {
	switch r.Op {
	case block.OpRead, block.OpWrite:
		return f.transfer(r)
	case block.OpFlush:
		return f.flush()
	case block.OpDiscard:
		if err := f.discard(r.Off, r.Len); err != nil {
			return err
		}
	case block.OpWriteZeroes:
		if done, err := f.zero(r); err != nil {
			return err
		} else if !done {
			return block.EmulateZeroes(ctx, inside{f}, r)
		}
	}
	if r.Flags&block.FUA != 0 {
		return f.flush()
	}
	return nil
}

// inside is the file for requests that are past its gate.
type inside struct{ *file }

func (i inside) Do(ctx context.Context, r block.Request) error { return i.do(ctx, r) }

func (f *file) flush() error {
	if f.readOnly {
		return nil
	}
	if lost := f.lost.Load(); lost != nil {
		return *lost
	}
	err := retry(func() error { return unix.Fdatasync(f.fd) })
	if err == nil {
		return nil
	}
	return f.lose(err)
}

// lose records that what was written is not, or may not be, on the medium.
func (f *file) lose(err error) error {
	err = fmt.Errorf("%w (writes since the last flush may be lost; open the device again to go on)", f.errno(err))
	f.lost.CompareAndSwap(nil, &err)
	return *f.lost.Load()
}

func (f *file) discard(off, n int64) error {
	if f.noDiscard.Load() {
		return block.ErrNotSupported
	}
	if n == 0 {
		return nil
	}
	var err error
	if f.blockDev {
		err = retry(func() error { return ioctlRange(f.fd, unix.BLKDISCARD, off, n) })
	} else {
		err = f.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
	}
	if unsupported(err) {
		f.noDiscard.Store(true)
		return block.ErrNotSupported
	}
	return f.errno(err)
}

// zero writes zeroes without sending them, if the file system can: done
// reports whether it could. On a block device PUNCH_HOLE is done by the device
// or fails, while the kernel does ZERO_RANGE by writing where it has to.
func (f *file) zero(r block.Request) (done bool, err error) {
	if r.Len == 0 {
		return true, nil
	}
	fast := r.Flags&block.FastZero != 0
	if r.Flags&block.NoUnmap == 0 && !f.noUnmapZeroes.Load() {
		err := f.fallocate(unix.FALLOC_FL_PUNCH_HOLE, r.Off, r.Len)
		if !unsupported(err) {
			return true, f.errno(err)
		}
		f.noUnmapZeroes.Store(true)
	}
	if !f.noKeepZeroes.Load() && !(f.blockDev && fast) {
		err := f.fallocate(unix.FALLOC_FL_ZERO_RANGE, r.Off, r.Len)
		if !unsupported(err) {
			return true, f.errno(err)
		}
		f.noKeepZeroes.Store(true)
	}
	if fast {
		return false, block.ErrNotSupported
	}
	return false, nil
}

func (f *file) fallocate(mode uint32, off, n int64) error {
	return retry(func() error { return unix.Fallocate(f.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n) })
}

// Extents are those of the file system, which may call a hole what has space
// but was never written. A block device shows none.
func (f *file) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return func(yield func(block.Extent, error) bool) {
		if err := block.CheckAt(&block.Request{Op: block.OpDiscard, Off: off, Len: n}, f.size, 1, false); err != nil {
			yield(block.Extent{}, err)
			return
		}
		if f.gate.Enter(ctx, 0, true) != nil {
			yield(block.Extent{}, block.ErrClosed)
			return
		}
		defer f.gate.Leave(0)
		for end := off + n; off < end; {
			if err := context.Cause(ctx); err != nil {
				yield(block.Extent{}, err)
				return
			}
			e, err := f.extent(off, end)
			if !yield(e, err) || err != nil {
				return
			}
			off += e.Len
		}
	}
}

// extent returns the extent that begins at off and ends before end.
func (f *file) extent(off, end int64) (block.Extent, error) {
	data, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // no data up to the end of the file
		return block.Extent{Off: off, Len: end - off, Hole: true, Zero: true}, nil
	case errors.Is(err, unix.EINVAL): // not known here
		return block.Extent{Off: off, Len: end - off}, nil
	case err != nil:
		return block.Extent{}, f.errno(err)
	case data > off:
		return block.Extent{Off: off, Len: min(data, end) - off, Hole: true, Zero: true}, nil
	}
	hole, err := unix.Seek(f.fd, off, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // cut off meanwhile
		return block.Extent{Off: off, Len: end - off}, nil
	}
	if err != nil {
		return block.Extent{}, f.errno(err)
	}
	if hole <= off { // punched between the two questions: one block of anything
		hole = off + 1
	}
	return block.Extent{Off: off, Len: min(hole, end) - off}, nil
}

// Close waits for requests in progress, closes the file and so gives up its
// lock. It flushes nothing.
func (f *file) Close() error {
	var err error
	f.close.Do(func() {
		if err = f.gate.Close(context.Background()); err == nil {
			err = f.errno(unix.Close(f.fd))
		}
	})
	return err
}
