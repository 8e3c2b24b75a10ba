package secret

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// blocked returns the signals that this thread does not get.
func blocked(t *testing.T) (mask uint64) {
	t.Helper()
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "SigBlk:")
	if _, err := fmt.Sscanf(rest, "%x", &mask); err != nil {
		t.Fatal(err)
	}
	return mask
}

func TestQuietThreadGetsNoSignalsButItsFaults(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := blocked(t)
	bit := func(s unix.Signal) uint64 { return 1 << (s - 1) }
	for range 2 { // also one within another
		Quiet(func() {
			Quiet(func() {})
			got := blocked(t)
			// SIGKILL and SIGSTOP cannot be blocked; the runtime preempts with SIGURG.
			const all = ^uint64(0)
			want := all &^ (bit(unix.SIGKILL) | bit(unix.SIGSTOP) | bit(unix.SIGSEGV) | bit(unix.SIGBUS) | bit(unix.SIGFPE) |
				bit(unix.SIGILL) | bit(unix.SIGTRAP) | bit(unix.SIGABRT) | bit(unix.SIGSYS))
			if got != want {
				t.Errorf("blocked: %#x, want %#x", got, want)
			}
		})
	}
	want := errors.New("inside")
	func() {
		defer func() {
			if got := recover(); got != want {
				t.Errorf("panic with %v, want %v", got, want)
			}
		}()
		Quiet(func() { panic(want) })
	}()
	if after := blocked(t); after != before {
		t.Errorf("blocked after it: %#x, want %#x", after, before)
	}
}

//go:noinline
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A collection waits for what runs: it must be able to stop it.
func TestQuietWorkIsPreempted(t *testing.T) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		Quiet(func() {
			for !closed(stop) {
			}
		})
	}()
	for range 3 {
		runtime.GC()
	}
	close(stop)
	<-done
}
