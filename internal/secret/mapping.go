package secret

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var pageSize = os.Getpagesize()

// held counts the bytes of each kind that this package holds.
var held [kinds]atomic.Int64

// lockedBytes is what of them counts against RLIMIT_MEMLOCK.
func lockedBytes() int64 { return held[Hidden].Load() + held[Locked].Load() }

// mapFenced returns a mapping of key pages between two inaccessible ones, and
// n bytes of it that end fewer than align bytes before the second of these.
func mapFenced(n int) (m, data []byte, k Kind, err error) {
	room := (n + align - 1) &^ (align - 1)
	size := (room + pageSize - 1) &^ (pageSize - 1)
	m, k, err = mapKeys(size)
	if err != nil {
		return nil, nil, 0, err
	}
	start := pageSize + size - room
	return m, m[start : start+n : start+n], k, nil
}

// mapKeys returns a mapping with size accessible bytes, whole pages, of the best
// kind that the policy allows and that can be had, between two inaccessible pages.
func mapKeys(size int) ([]byte, Kind, error) {
	m, err := unix.Mmap(-1, 0, size+2*pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, 0, fmt.Errorf("secret: map %d bytes: %w", size+2*pageSize, err)
	}
	p := Current()
	k := Hidden
	// Whatever keeps it from being hidden, such as a lack of descriptors, locked
	// memory is the second best, and its error tells of the limit.
	if p == MlockOnly || size > maxHidden || !hidden() || hide(inner(m)) != nil {
		k = Locked
		if err = protect(inner(m)); err == nil {
			err = lock(inner(m))
			if err != nil && p == Insecure {
				k, err = Ordinary, nil
			}
		}
	}
	if err != nil {
		unix.Munmap(m) // nothing secret in it yet
		return nil, 0, err
	}
	held[k].Add(int64(size))
	return m, k, nil
}

// inner is the accessible part of a mapping.
func inner(m []byte) []byte { return m[pageSize : len(m)-pageSize] }

// hide puts pages of memfd_secret, which are locked and in no core dump by their
// nature, in the place of pages. On an error pages are as before.
func hide(pages []byte) error {
	// A child that is forked halfway would share the pages.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	size := uintptr(len(pages))
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return err
	}
	// Not at its place at once: a mapping over another that fails, at the limit,
	// may leave a hole, which another thread may fill before we do.
	p, err := unix.MmapPtr(fd, 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	// Shared pages cannot be wiped in a child, but kept from it.
	err = unix.Madvise(unsafe.Slice((*byte)(p), size), unix.MADV_DONTFORK)
	if err == nil {
		_, err = unix.MremapPtr(p, size, unsafe.Pointer(&pages[0]), size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	}
	if err != nil {
		unix.MunmapPtr(p, size)
		return err
	}
	// The kernel brings in such pages at their first use only: now, while nobody
	// waits for a cipher.
	for i := 0; i < len(pages); i += pageSize {
		pages[i] = 0
	}
	return nil
}

// protect makes pages accessible and keeps them to this process. The advice must
// be honoured: a buffer that might reach a core dump is not secret.
func protect(pages []byte) error {
	if err := unix.Mprotect(pages, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("secret: make %d bytes accessible: %w", len(pages), err)
	}
	if err := unix.Madvise(pages, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("secret: exclude from core dumps (MADV_DONTDUMP, Linux 3.4): %w", err)
	}
	if err := unix.Madvise(pages, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("secret: hide from forked children (MADV_WIPEONFORK, Linux 4.14): %w", err)
	}
	return nil
}

func lock(pages []byte) error {
	if err := unix.Mlock(pages); err != nil {
		return lockError(len(pages), err)
	}
	return nil
}

func lockError(n int, err error) error {
	limit := "unknown"
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r) == nil {
		limit = fmt.Sprintf("%d bytes", r.Cur)
	}
	return &limitError{fmt.Errorf("secret: lock %d bytes of key memory: %w: %d are locked and RLIMIT_MEMLOCK is %s: raise it "+
		"(ulimit -l, or LimitMEMLOCK= in the systemd unit) or grant CAP_IPC_LOCK", n, err, lockedBytes(), limit)}
}

// ErrLimit says that no more memory could be locked.
var ErrLimit = errors.New("no more key memory")

type limitError struct{ error }

func (e *limitError) Is(target error) bool { return target == ErrLimit }
func (e *limitError) Unwrap() error        { return e.error }

// unmap gives back a wiped mapping, which also unlocks it.
func unmap(m []byte, k Kind) {
	held[k].Add(-int64(len(inner(m))))
	// It can only fail if the mapping is not ours.
	if err := unix.Munmap(m); err != nil {
		panic("secret: unmap: " + err.Error())
	}
}
