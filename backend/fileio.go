package backend

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/block"
	"keyway/internal/arena"
)

const (
	// maxVec is the number of segments of one system call: as many as x/sys
	// passes on without allocating.
	maxVec = 8

	// maxDirectBounce bounds the memory of a direct request whose own memory
	// does not fit; the largest class of the arena.
	maxDirectBounce = 1 << 20
)

// transfer performs a read or a write.
func (f *file) transfer(r block.Request) error {
	flags := 0
	if r.NoWait() {
		flags |= unix.RWF_NOWAIT
	}
	fua := r.Op == block.OpWrite && r.Flags&block.FUA != 0
	if fua {
		if lost := f.lost.Load(); lost != nil {
			return *lost
		}
		flags |= unix.RWF_DSYNC
	}
	err := f.move(r.Op, r.Data, r.Off, flags)
	switch {
	case err == nil:
		return nil
	case r.NoWait() && errors.Is(err, unix.EAGAIN):
		return block.ErrWouldBlock
	case r.NoWait() && unsupported(err):
		if r.Op == block.OpRead {
			f.noNowaitRead.Store(true)
		} else {
			f.noNowaitWrite.Store(true)
		}
		return block.ErrWouldBlock
	case fua && f.syncFailed(r, err):
		return f.lose(err)
	}
	return f.errno(err)
}

// syncFailed tells whether it was the second half of a failed write with FUA,
// making it durable, that failed: then the kernel has told, and forgotten,
// an error that may concern other writes. Lack of space is the one error
// where the first half is worth asking: it passes.
func (f *file) syncFailed(r block.Request, err error) bool {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return errors.Is(err, unix.EIO)
	}
	return f.move(r.Op, r.Data, r.Off, 0) == nil
}

// move reads or writes all of data at off.
func (f *file) move(op block.Op, data block.Segments, off int64, flags int) error {
	if f.direct && !f.fitsDirect(data) {
		return f.bounce(op, data, off, flags)
	}
	for {
		n, err := f.once(op, data, off, flags)
		if err != nil || n == data.Len() {
			return err
		}
		off += int64(n)
		data = data.Slice(n, data.Len()-n)
	}
}

// once makes one system call and returns how far it came, at least one byte
// unless data is empty.
func (f *file) once(op block.Op, data block.Segments, off int64, flags int) (int, error) {
	var array [maxVec][]byte
	vec := array[:0]
	if b, ok := data.Contiguous(); ok {
		vec = append(vec, b)
	} else {
		for b := range data.All() {
			if vec = append(vec, b); len(vec) == maxVec {
				break
			}
		}
	}
	for {
		var n int
		var err error
		if op == block.OpRead {
			n, err = unix.Preadv2(f.fd, vec, off, flags)
		} else {
			n, err = unix.Pwritev2(f.fd, vec, off, flags)
		}
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0 && data.Len() > 0 && op == block.OpRead:
			return 0, fmt.Errorf("the file ends before byte %d, somebody has cut it off: %w", off, io.ErrUnexpectedEOF)
		case n == 0 && data.Len() > 0:
			return 0, io.ErrShortWrite
		}
		return n, nil
	}
}

// fitsDirect reports whether every segment may go to a system call with
// O_DIRECT.
func (f *file) fitsDirect(data block.Segments) bool {
	for b := range data.All() {
		if uintptr(unsafe.Pointer(&b[0]))&f.memMask != 0 || len(b)&(f.logical-1) != 0 {
			return false
		}
	}
	return true
}

// bounce moves data through aligned memory.
func (f *file) bounce(op block.Op, data block.Segments, off int64, flags int) error {
	buf := arena.Get(min(maxDirectBounce, data.Len()))
	defer buf.Put()
	for data.Len() > 0 {
		part := buf.Bytes()[:min(buf.Len(), data.Len())]
		if op == block.OpWrite {
			data.CopyTo(part)
		}
		if err := f.move(op, block.Bytes(part), off, flags); err != nil {
			return err
		}
		if op == block.OpRead {
			data.CopyFrom(part)
		}
		off += int64(len(part))
		data = data.Slice(len(part), data.Len()-len(part))
	}
	return nil
}

// errno says what an error of the system means for a device; nil stays nil.
func (f *file) errno(err error) error {
	if err == nil {
		return nil
	}
	kind := block.ErrIO
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		kind = block.ErrNoSpace
	case unsupported(err):
		kind = block.ErrNotSupported
	}
	return fmt.Errorf("%s: %w: %w", f.path, kind, err)
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTTY)
}

// retry calls f until a signal does not interrupt it.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// ioctlRange calls an ioctl that takes an offset and a length in bytes.
func ioctlRange(fd int, req uint, off, n int64) error {
	arg := [2]uint64{uint64(off), uint64(n)}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&arg)))
	if e != 0 {
		return e
	}
	return nil
}
