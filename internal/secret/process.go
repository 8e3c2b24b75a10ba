package secret

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Seclude keeps all memory of the process, the heap and stacks that keys pass
// through as well, from core dumps and from other processes of the same user: core
// files have no size, a core handler gets nothing, and ptrace(2), /proc/PID/mem
// and process_vm_readv(2) are for those with CAP_SYS_PTRACE. A program calls it
// first of all; a change of its user ends it, exec too.
func Seclude() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("secret: forbid core files (RLIMIT_CORE): %w", err)
	}
	// The limit does not keep a core from a handler that core_pattern(5) names:
	// this does.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("secret: forbid core dumps and debuggers (PR_SET_DUMPABLE): %w", err)
	}
	// No exception from Yama's rule, if there is Yama: EINVAL says that there is not.
	if err := unix.Prctl(unix.PR_SET_PTRACER, 0, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("secret: forbid debuggers (PR_SET_PTRACER): %w", err)
	}
	return nil
}
