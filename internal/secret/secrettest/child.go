// Package secrettest lets tests run out of key memory, and look for secrets in that
// of processes.
package secrettest

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// WithLimit runs f in a child process whose goroutine may lock limit bytes and has
// no right to more, and returns what it printed. The child runs the calling test
// alone. f must not leave its goroutine.
func WithLimit(t *testing.T, limit uint64, f func()) string {
	t.Helper()
	if os.Getenv("SECRET_TEST_CHILD") == t.Name() {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			dropIPCLock(t) // root ignores the limit
		}
		f()
		t.SkipNow() // what follows is for the parent
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "SECRET_TEST_CHILD="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return string(out)
}

// dropIPCLock gives up CAP_IPC_LOCK on the calling thread, which the caller keeps.
func dropIPCLock(t *testing.T) {
	runtime.LockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	const bit = 1 << unix.CAP_IPC_LOCK
	data[0].Effective &^= bit
	data[0].Permitted &^= bit
	data[0].Inheritable &^= bit
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
}
