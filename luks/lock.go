package luks

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked: somebody else has the file open to change it.
var ErrLocked = errors.New("another program is using it")

// LockFile keeps other writers away from a header: it takes the advisory lock of f
// (flock(2)) for f alone, or shared with others that only read, and does not wait:
// ErrLocked says that somebody has it. cryptsetup takes the same lock of a regular
// file. It ends when f, and what was duplicated of it, is closed. Whoever changes a
// header takes it before Edit reads.
func LockFile(f *os.File, exclusive bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("luks: %s: %w: wait until it has ended", f.Name(), ErrLocked)
		case err != nil:
			return fmt.Errorf("luks: lock %s: %w", f.Name(), err)
		default:
			return nil
		}
	}
}
