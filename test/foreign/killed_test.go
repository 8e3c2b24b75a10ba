package foreign

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/test/harness"
)

// A syscallStop is what the kernel tells of a thread that stands at a system call:
// struct ptrace_syscall_info of ptrace(2), up to the arguments of an entry.
type syscallStop struct {
	op   uint8 // 1: at its entry
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	nr   uint64
	args [6]uint64
}

const entry = 1

// writes tells whether a call writes to a file or makes that durable: such as short
// writes, by which threads wake each other, do not count.
func (s *syscallStop) writes() bool {
	switch s.nr {
	case unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE:
		return true
	case unix.SYS_WRITE:
		return s.args[2] >= 512
	}
	return false
}

// killedAt runs a keyway command and kills it where it is about to make its call
// number k of those that write. It reports whether the command had as many: else it
// has ended, and must have succeeded.
func (b *luksBench) killedAt(k int, args ...string) (killed bool) {
	b.t.Helper()
	cmd := exec.Command(harness.Binary(b.t), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.Dir}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// A group of its own, for which one can wait and for nobody else.
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the one that traces
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	s, killed, err := trace(cmd.Process.Pid, k)
	_ = cmd.Wait() // it has ended: this closes pipes
	switch {
	case err != nil:
		b.t.Fatalf("keyway %q: trace: %v", args, err)
	case !killed && s.ExitStatus() != 0:
		b.t.Fatalf("keyway %q, not killed: status %d\n%s", args, s.ExitStatus(), out.String())
	}
	return killed
}

// trace follows a process that stands at its first instruction to its end.
func trace(pid, k int) (end unix.WaitStatus, killed bool, err error) {
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	calls := 0
	seen := []int{pid} // threads that have come
	for begun := false; ; {
		var s unix.WaitStatus
		tid, err := unix.Wait4(-pid, &s, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return s, killed, err
		}
		if s.Exited() || s.Signaled() {
			if tid == pid {
				return s, killed, nil
			}
			continue
		}
		signal := 0
		switch sig := s.StopSignal(); {
		case !begun:
			begun = true
			if err := unix.PtraceSetOptions(pid, options); err != nil {
				return s, killed, err
			}
		case sig == unix.SIGTRAP|0x80:
			at := syscallStop{}
			_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(at), uintptr(unsafe.Pointer(&at)), 0, 0)
			if e != 0 && e != unix.ESRCH {
				return s, killed, e
			}
			if at.op == entry && at.writes() {
				if calls++; calls == k && !killed {
					killed = true
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		case sig == unix.SIGTRAP: // a clone
		case sig == unix.SIGSTOP && !slices.Contains(seen, tid):
			seen = append(seen, tid) // so a new thread begins
		default:
			signal = int(sig)
		}
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) { // killed meanwhile
			return s, killed, err
		}
	}
}

// theCopy stands for the image among the arguments of eachKill.
const theCopy = "IMAGE"

// eachKill runs a command again and again on copies of an image, killed one call later
// each time, and looks at what it left.
func (b *luksBench) eachKill(least int, image string, args []string, look func(t *testing.T, image string, ended bool)) {
	b.t.Helper()
	content, err := os.ReadFile(image)
	if err != nil {
		b.t.Fatal(err)
	}
	args = slices.Clone(args)
	copied := filepath.Join(b.Dir, "copy.img")
	args[slices.Index(args, theCopy)] = copied
	for k := 1; ; k++ {
		b.file("copy.img", content)
		killed := b.killedAt(k, args...)
		look(b.t, copied, !killed)
		if b.t.Failed() {
			b.t.Fatalf("that was when it was killed at call %d", k)
		}
		if !killed {
			if k <= least {
				b.t.Errorf("it wrote and synced %d times only, want at least %d: is this what it does?", k-1, least)
			}
			return
		}
	}
}

// The layout is the kernel's.
var _ = [1]struct{}{}[unsafe.Offsetof(syscallStop{}.args)-32]
