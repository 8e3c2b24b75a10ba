package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/block"
	"keyway/internal/arena"
	"keyway/internal/size"
)

const (
	fileBlock    = 512  // what a buffered regular file takes; the page cache evens it out
	filePhysical = 4096 // a page: smaller writes may have to read first
)

// openFile opens a regular file or a block device. Without a size the device
// is the whole medium, rounded down to its block size: a rest is out of
// reach. With a size it is the beginning of the medium, which must be as
// large; an existing file never grows.
func openFile(_ context.Context, l Location, o Options) (block.Device, error) {
	if l.Place == "" {
		return nil, l.errorf("no path")
	}
	f := &file{path: l.Place, fd: -1, readOnly: o.ReadOnly, direct: l.Bool("direct")}
	created, err := f.open(o)
	if err == nil {
		err = f.prepare(o, created)
	}
	if err != nil {
		if f.fd >= 0 {
			unix.Close(f.fd)
		}
		if created && !errors.Is(err, block.ErrBusy) {
			os.Remove(f.path) // ours, and locked or never opened: nobody else has it
		}
		return nil, err
	}
	f.made = created
	return f, nil
}

// Unmake takes away the file if opening made it: whoever wanted the device
// did not get so far as to use it. It is called after Close.
func (f *file) Unmake() {
	if f.made {
		os.Remove(f.path)
	}
}

// open opens the path and reports whether it made the file.
func (f *file) open(o Options) (created bool, err error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if f.readOnly {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	}
	if f.direct {
		flags |= unix.O_DIRECT
	}
	// Looked at first, because opening a FIFO or a tape does things.
	switch st, err := os.Stat(f.path); {
	case errors.Is(err, fs.ErrNotExist) && o.Create && !f.readOnly:
		if o.Size == 0 {
			return false, fmt.Errorf("%s does not exist, and needs a size to be made", f.path)
		}
		flags |= unix.O_CREAT | unix.O_EXCL
	case err != nil:
		return false, err
	case st.Mode().IsRegular():
	case st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0:
		f.blockDev = true
		if !f.readOnly {
			flags |= unix.O_EXCL // on a block device: nobody else claims it, no mount, no RAID
		}
	default:
		return false, fmt.Errorf("%s is neither a regular file nor a block device", f.path)
	}
	err = retry(func() (err error) {
		f.fd, err = unix.Open(f.path, flags, 0o600)
		return err
	})
	switch {
	case err == unix.EBUSY:
		return false, &busyError{f.path}
	case err == unix.EINVAL && f.direct:
		// Some file systems make the file before they refuse O_DIRECT.
		return flags&unix.O_CREAT != 0, f.noDirect()
	case err != nil:
		return false, &fs.PathError{Op: "open", Path: f.path, Err: err}
	}
	return flags&unix.O_CREAT != 0, nil
}

func (f *file) noDirect() error {
	return fmt.Errorf("%s: its file system has no direct I/O: leave direct=1 out", f.path)
}

// prepare locks the open file and finds out what it can do.
func (f *file) prepare(o Options, created bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return f.errno(err)
	}
	if f.blockDev != (st.Mode&unix.S_IFMT == unix.S_IFBLK) {
		return fmt.Errorf("%s was replaced while it was being opened", f.path)
	}
	if err := f.lock(); err != nil {
		return err
	}
	if err := f.geometry(); err != nil {
		return err
	}
	if o.Size%int64(f.logical) != 0 {
		return fmt.Errorf("%s: a size of %d bytes is not a multiple of the block size %d", f.path, o.Size, f.logical)
	}
	if created {
		if err := f.grow(o.Size); err != nil {
			return err
		}
	}
	if err := f.measure(o.Size); err != nil {
		return err
	}
	f.probe()
	return nil
}

// geometry finds the block sizes and the alignment of memory.
func (f *file) geometry() error {
	f.logical, f.physical = fileBlock, filePhysical
	if f.blockDev {
		for req, value := range map[uint]*int{
			unix.BLKSSZGET: &f.logical, unix.BLKPBSZGET: &f.physical, unix.BLKIOMIN: &f.minIO, unix.BLKIOOPT: &f.optIO,
		} {
			n, err := unix.IoctlGetUint32(f.fd, req)
			if err != nil {
				return f.errno(err)
			}
			*value = int(n)
		}
	}
	if !f.direct {
		return nil
	}
	var st unix.Statx_t
	if err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st); err != nil {
		return f.errno(err)
	}
	memory := arena.Align
	switch {
	case st.Mask&unix.STATX_DIOALIGN == 0: // before Linux 6.1, or a file system that does not tell
		if !f.blockDev {
			f.logical = filePhysical // fits every disk
		}
	case st.Dio_mem_align == 0 || st.Dio_offset_align == 0:
		return f.noDirect()
	default:
		f.logical, memory = max(f.logical, int(st.Dio_offset_align)), int(st.Dio_mem_align)
	}
	if memory > arena.Align {
		return fmt.Errorf("%s wants memory aligned to %d bytes for direct I/O: leave direct=1 out", f.path, memory)
	}
	f.physical = max(f.physical, f.logical)
	f.memMask = uintptr(memory - 1)
	return nil
}

// grow gives a file of our own its size, and makes its name durable: a flush
// of the device must not be all that keeps it.
func (f *file) grow(n int64) error {
	if err := retry(func() error { return unix.Ftruncate(f.fd, n) }); err != nil {
		return f.errno(err)
	}
	if err := retry(func() error { return unix.Fsync(f.fd) }); err != nil {
		return f.errno(err)
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// measure sets the size: want, or all if want is 0.
func (f *file) measure(want int64) error {
	var there int64
	if f.blockDev {
		var n uint64
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&n)))
		if e != 0 {
			return f.errno(e)
		}
		there = int64(n)
	} else {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return f.errno(err)
		}
		there = st.Size
	}
	switch {
	case want > there && f.blockDev:
		return fmt.Errorf("%s has %d bytes, and %d are wanted", f.path, there, want)
	case want > there:
		return fmt.Errorf("%s has %d bytes, and %d are wanted: make it larger (truncate -s %s %s) or ask for less",
			f.path, there, want, size.Format(want), f.path)
	case want > 0:
		f.size = want
	default:
		f.size = there &^ int64(f.logical-1)
	}
	if f.size == 0 {
		return fmt.Errorf("%s has %d bytes, less than one block of %d", f.path, there, f.logical)
	}
	return nil
}

// probe finds out what requests will not work, without changing a byte, so
// that Info is right from the start.
func (f *file) probe() {
	if f.readOnly {
		return
	}
	if !f.direct {
		f.probeNowait()
	}
	if f.blockDev {
		f.noDiscard.Store(f.queueLimit("discard_max_bytes") == 0)
		f.noUnmapZeroes.Store(f.queueLimit("write_zeroes_max_bytes") == 0)
		return
	}
	// A hole behind the end is no change.
	var st unix.Stat_t
	if unix.Fstat(f.fd, &st) != nil {
		return
	}
	behind := (st.Size + filePhysical - 1) &^ (filePhysical - 1)
	if unsupported(f.fallocate(unix.FALLOC_FL_PUNCH_HOLE, behind, filePhysical)) {
		f.noDiscard.Store(true)
		f.noUnmapZeroes.Store(true)
	}
}

// probeNowait asks for a buffered write that must not wait, from memory that
// cannot be read: a file system that knows RWF_NOWAIT answers EFAULT or
// EAGAIN, one that does not (ext4) EOPNOTSUPP before it looks.
func (f *file) probeNowait() {
	none, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return
	}
	defer unix.Munmap(none)
	iov := unix.Iovec{Base: &none[0]}
	iov.SetLen(f.logical)
	_, _, e := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(f.fd), uintptr(unsafe.Pointer(&iov)), 1, 0, 0, unix.RWF_NOWAIT)
	f.noNowaitWrite.Store(e != unix.EFAULT && e != unix.EAGAIN)
}

// queueLimit returns a limit of the disk under a block device in bytes, 1 if
// it is not told.
func (f *file) queueLimit(name string) int64 {
	var st unix.Stat_t
	if unix.Fstat(f.fd, &st) != nil {
		return 1
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	// Beside a partition, not beneath it; joined by hand because the directory
	// is a link, which cleaning the path would undo.
	for _, queue := range []string{"/queue/", "/../queue/"} {
		text, err := os.ReadFile(dir + queue + name)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return n
		}
	}
	return 1
}
