package secret

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A signal writes the registers of the thread that it interrupts to memory, the
// thread's signal stack, where they stay until the next one. The runtime interrupts
// threads to preempt them, so that the round keys that a cipher had in vector
// registers may be there long after the key was evicted; that memory is neither
// locked nor ours to wipe.

// threadsLimit bounds how long OverwriteRegisters waits for threads that the kernel
// does not let go, such as one that writes to a device which hangs.
const threadsLimit = 100 * time.Millisecond

// OverwriteRegisters makes every thread of the process overwrite what signals have
// left of its registers: each gets the signal with which the runtime preempts, which
// interrupts nothing for long. When it returns, no key that was last used before the
// call is on a signal stack, but of threads that wait in the kernel and cannot be
// interrupted: they overwrite theirs as soon as they leave it. It takes some 20 µs
// for each thread. Without /proc it does nothing.
func OverwriteRegisters() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	pid := os.Getpid()
	left := make([]string, 0, len(threads))
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err == nil && unix.Tgkill(pid, tid, unix.SIGURG) == nil { // else it has ended
			left = append(left, t.Name())
		}
	}
	// Nobody tells when a thread has taken its signal but the kernel, to who asks.
	wait := 10 * time.Microsecond
	for end := time.Now().Add(threadsLimit); len(left) > 0 && time.Now().Before(end); wait *= 2 {
		n := 0
		for _, t := range left {
			if signalPending(t) {
				left[n] = t
				n++
			}
		}
		if left = left[:n]; n > 0 {
			time.Sleep(min(wait, time.Millisecond))
		}
	}
}

// signalPending reports whether a thread has not taken its signal: SigPnd of
// proc_pid_status(5) is the set of those that are meant for it alone.
func signalPending(tid string) bool {
	status, err := os.ReadFile("/proc/self/task/" + tid + "/status")
	if err != nil {
		return false // it has ended
	}
	_, rest, found := bytes.Cut(status, []byte("\nSigPnd:\t"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	set, err := strconv.ParseUint(string(line), 16, 64)
	return found && err == nil && set&(1<<(unix.SIGURG-1)) != 0
}
