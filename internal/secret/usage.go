package secret

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Usage is what key memory the process has, and may have.
type Usage struct {
	// Bytes of key memory held now, by kind, whole pages without the inaccessible
	// ones; secrets in use are about half of it, or all.
	Hidden, Locked, Ordinary int64
	// Process is all that the process has locked, as the kernel counts it against
	// the limit: VmLck of proc_pid_status(5), rounded to KiB. -1 if it is not told.
	Process int64
	// Limit is RLIMIT_MEMLOCK in bytes, for the whole process; -1: there is none,
	// or CAP_IPC_LOCK lifts it.
	Limit int64
}

// Held tells how much key memory there is and how much there may be.
func Held() Usage {
	return Usage{
		Hidden: held[Hidden].Load(), Locked: held[Locked].Load(), Ordinary: held[Ordinary].Load(),
		Process: processLocked(), Limit: limit(),
	}
}

// HasHidden reports whether the kernel offers hidden memory.
func HasHidden() bool { return hidden() }

func processLocked() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1
	}
	_, rest, _ := bytes.Cut(status, []byte("\nVmLck:"))
	line, _, _ := bytes.Cut(rest, []byte(" kB\n"))
	n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	if err != nil {
		return -1
	}
	return n << 10
}

func limit() int64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r) != nil || r.Cur >= 1<<63 || mayLockAll() {
		return -1
	}
	return int64(r.Cur)
}

// mayLockAll reports whether CAP_IPC_LOCK lifts the limit: the kernel asks for it
// in the first user namespace, so that root of a container may have it in vain.
func mayLockAll() bool {
	// The number of that namespace is part of the kernel's interface
	// (USER_NS_INIT_INO of linux/nsfs.h).
	if ns, err := os.Readlink("/proc/self/ns/user"); err != nil || ns != "user:[4026531837]" {
		return false
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}
