package secret

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var pageSize = os.Getpagesize()

// locked counts the bytes that this package holds locked.
var locked atomic.Int64

// mapFenced returns a mapping of locked pages between two inaccessible ones, and
// n bytes of it that end fewer than align bytes before the second of these.
func mapFenced(n int) (m, data []byte, err error) {
	room := (n + align - 1) &^ (align - 1)
	size := (room + pageSize - 1) &^ (pageSize - 1)
	m, err = mapLocked(size)
	if err != nil {
		return nil, nil, err
	}
	start := pageSize + size - room
	return m, m[start : start+n : start+n], nil
}

// mapLocked returns a mapping with size accessible bytes, whole pages, between
// two inaccessible pages.
func mapLocked(size int) ([]byte, error) {
	m, err := unix.Mmap(-1, 0, size+2*pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("secret: map %d bytes: %w", size+2*pageSize, err)
	}
	if err := protect(inner(m)); err != nil {
		unix.Munmap(m) // nothing secret in it yet
		return nil, err
	}
	locked.Add(int64(size))
	return m, nil
}

// inner is the accessible part of a mapping.
func inner(m []byte) []byte { return m[pageSize : len(m)-pageSize] }

// protect makes the data pages accessible and locks them. The advice must be
// honoured too: a buffer that might reach a core dump is not secret.
func protect(inner []byte) error {
	if err := unix.Mprotect(inner, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("secret: make %d bytes accessible: %w", len(inner), err)
	}
	if err := unix.Madvise(inner, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("secret: exclude from core dumps (MADV_DONTDUMP, Linux 3.4): %w", err)
	}
	if err := unix.Madvise(inner, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("secret: hide from forked children (MADV_WIPEONFORK, Linux 4.14): %w", err)
	}
	if err := unix.Mlock(inner); err != nil {
		return lockError(len(inner), err)
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
		"(ulimit -l, or LimitMEMLOCK= in the systemd unit) or grant CAP_IPC_LOCK", n, err, locked.Load(), limit)}
}

// ErrLimit says that no more memory could be locked.
var ErrLimit = errors.New("no more key memory")

type limitError struct{ error }

func (e *limitError) Is(target error) bool { return target == ErrLimit }
func (e *limitError) Unwrap() error        { return e.error }

// unmap gives back a wiped mapping, which also unlocks it.
func unmap(m []byte) {
	locked.Add(-int64(len(inner(m))))
	// It can only fail if the mapping is not ours.
	if err := unix.Munmap(m); err != nil {
		panic("secret: unmap: " + err.Error())
	}
}
