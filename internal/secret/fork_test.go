package secret

import (
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notMapped is the exit status of a child that does not have the memory at all.
const notMapped = 99

// forkSees forks a child that only looks at n bytes from p on and exits: 0 if all
// are zero, notMapped if they are not there. page is the page of p. The child has one thread and no Go scheduler, so this runs nothing
// that could grow the stack or be instrumented.
//
//go:norace
//go:nosplit
func forkSees(p, page unsafe.Pointer, n uintptr) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_MSYNC, uintptr(page), 1, unix.MS_ASYNC); errno == unix.ENOMEM {
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, notMapped, 0, 0)
		}
	}
	var seen byte
	for i := uintptr(0); i < n; i++ {
		seen |= *(*byte)(unsafe.Add(p, i))
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(seen), 0, 0)
	}
}

func childSees(t *testing.T, p []byte) int {
	t.Helper()
	first := unsafe.Pointer(&p[0])
	page := unsafe.Add(first, -int(uintptr(first)%uintptr(pageSize)))
	pid, errno := forkSees(first, page, uintptr(len(p)))
	if errno != 0 {
		t.Fatal(errno)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	if !status.Exited() {
		t.Fatalf("the child ended with %v", status)
	}
	return status.ExitStatus()
}

func TestForkedChildSeesZeroesOrNothing(t *testing.T) {
	plain := []byte("no secret")
	if childSees(t, plain) == 0 {
		t.Fatal("the child does not see common memory: the test is blind")
	}
	each(t, func(t *testing.T) {
		for _, n := range []int{64, 720, 20000, maxHidden + 1} {
			b := mustNew(t, n)
			p := b.Bytes()
			for i := range p {
				p[i] = 0x5a
			}
			want := 0
			if kindOf(b) == Hidden {
				want = notMapped
			}
			if got := childSees(t, p); got != want {
				t.Errorf("a secret of %d bytes: the child sees %#x, want %#x", n, got, want)
			}
			if p[0] != 0x5a || p[n-1] != 0x5a {
				t.Errorf("a secret of %d bytes: the parent lost it", n)
			}
		}
	})
}
