package secret

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"keyway/internal/invariant"
)

// Kind says what protects a run of key memory. Every kind is outside the Go heap,
// between inaccessible pages, and in no core dump and no forked child.
type Kind uint8

const (
	// Hidden memory is locked, and the kernel has taken it out of its own mapping
	// (memfd_secret(2), Linux 5.14): only this process can read it. A debugger,
	// /proc/PID/mem and process_vm_readv fail, root's too. It blocks hibernation.
	Hidden Kind = iota
	// Locked memory is never swapped (mlock(2)).
	Locked
	// Ordinary memory may be swapped. It is handed out under Insecure only.
	Ordinary
	kinds
)

// String is "hidden", "locked" or "ordinary".
func (k Kind) String() string { return [...]string{"hidden", "locked", "ordinary"}[k] }

// Policy says which kinds of memory New may hand out.
type Policy uint8

const (
	// Best is the default: Hidden where the kernel has it, else Locked. Secrets of
	// more than 64 KiB are Locked.
	Best Policy = iota
	// MlockOnly never takes Hidden: for machines that must hibernate, whose image
	// of the memory then holds the keys.
	MlockOnly
	// Insecure is Best as far as memory can be locked; beyond that, Ordinary.
	Insecure
)

var policyNames = [...]string{"best", "locked", "insecure"}

// String is the name that ParsePolicy takes.
func (p Policy) String() string { return policyNames[p] }

// ParsePolicy finds a policy by its name: best, locked or insecure.
func ParsePolicy(name string) (Policy, error) {
	for p, n := range policyNames {
		if n == name {
			return Policy(p), nil
		}
	}
	return Best, fmt.Errorf("key memory %q is not best, locked or insecure", name)
}

var policy atomic.Uint32

// Where every secret has pages of its own, for tests, hidden ones would make each
// ten times as dear.
func init() {
	if invariant.Enabled {
		SetPolicy(MlockOnly)
	}
}

// maxHidden is the size in bytes of the largest mapping that is hidden. Ciphers
// read hidden memory as fast as any other, but every page of it is taken out of
// the kernel's own mapping when it comes, and put back when it goes: 70 to 200 µs
// a page, where locking costs 5 to 30, and it splits the large pages of that
// mapping. Slabs, which stay, are worth it; large buffers are mostly of those
// that come and go, with a file or the stripes of a LUKS keyslot in them.
const maxHidden = maxSlab

// SetPolicy sets the policy of the process, for memory that is taken from now on.
// A program calls it before it has keys.
func SetPolicy(p Policy) { policy.Store(uint32(p)) }

// Current returns the policy.
func Current() Policy { return Policy(policy.Load()) }

// hidden reports, by trying once, whether the kernel has memfd_secret: it may be
// too old, have it switched off (secretmem.enable=0), or a seccomp filter may
// forbid it. A limit that is used up does not count: it says nothing of the kernel.
var hidden = sync.OnceValue(func() bool {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if unix.Ftruncate(fd, int64(pageSize)) != nil {
		return false
	}
	p, err := unix.MmapPtr(fd, 0, nil, uintptr(pageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err == unix.EAGAIN
	}
	return unix.MunmapPtr(p, uintptr(pageSize)) == nil
})
