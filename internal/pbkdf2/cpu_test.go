package pbkdf2

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpu is the processor's time that the process has taken.
func cpu() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
