package backend

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"keyway/block"
)

// A busyError is block.ErrBusy with the path and a way out.
type busyError struct{ path string }

func (e *busyError) Error() string {
	return fmt.Sprintf("%s is in use by another process or device: end that use first, or let both open it read-only", e.path)
}

func (e *busyError) Is(target error) bool { return target == block.ErrBusy }

// The bytes that qemu locks in an image (block/file-posix.c,
// RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE): a shared lock on 100+p says
// that the holder uses permission p, one on 200+p that it does not let others
// use it. Whoever comes locks its own bytes first and then looks for locks of
// others on the opposite ones, so of two that come at once none gets in
// unnoticed.
const (
	lockUses    = 100
	lockForbids = 200

	permRead      = 0 // read and expect what was written
	permWrite     = 1
	permUnchanged = 2 // write what is there already
	permResize    = 3
)

// lock takes the file for this device: alone, or with other readers if
// read-only. Locks belong to the open file, so they hold against other devices
// of this process too, and end when it is closed.
//
// A file system without locks is used without.
func (f *file) lock() error {
	uses, forbids := []int64{permRead, permWrite, permResize}, []int64{permRead, permWrite, permUnchanged, permResize}
	how := unix.LOCK_EX
	if f.readOnly {
		uses, forbids = []int64{permRead}, []int64{permWrite, permResize}
		how = unix.LOCK_SH
	}
	if err := f.lockRanges(uses, forbids); err != nil {
		return err
	}
	if f.blockDev || f.overNetwork() {
		// udev takes this lock of block devices for moments of its own; O_EXCL
		// is theirs. NFS turns it into a lock of the whole file, which would
		// meet the ones just taken.
		return nil
	}
	err := retry(func() error { return unix.Flock(f.fd, how|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return &busyError{f.path}
	}
	if noLocks(err) {
		return nil
	}
	return f.errno(err)
}

func (f *file) lockRanges(uses, forbids []int64) error {
	for _, at := range places(uses, forbids, lockUses, lockForbids) {
		l := unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}
		err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &l)
		switch {
		case err == unix.EAGAIN || err == unix.EACCES:
			return &busyError{f.path}
		case noLocks(err):
			return nil
		case err != nil:
			return f.errno(err)
		}
	}
	for _, at := range places(uses, forbids, lockForbids, lockUses) {
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_GETLK, &l); err != nil {
			return f.errno(err)
		}
		if l.Type != unix.F_UNLCK {
			return &busyError{f.path}
		}
	}
	return nil
}

// places returns the bytes of two sets of permissions.
func places(a, b []int64, baseA, baseB int64) (all []int64) {
	for _, p := range a {
		all = append(all, baseA+p)
	}
	for _, p := range b {
		all = append(all, baseB+p)
	}
	return all
}

func noLocks(err error) bool {
	return unsupported(err) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOLCK)
}

func (f *file) overNetwork() bool {
	var st unix.Statfs_t
	if unix.Fstatfs(f.fd, &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return true
	}
	return false
}
