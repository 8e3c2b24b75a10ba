package secret

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/internal/secret/secrettest"
)

// othersRead reads p as another process would: past the page tables' own user, by
// process_vm_readv(2) and through /proc/PID/mem.
func othersRead(t *testing.T, p []byte) (byCall, byFile error) {
	t.Helper()
	got := make([]byte, len(p))
	local := []unix.Iovec{{Base: &got[0]}}
	local[0].SetLen(len(p))
	n, err := unix.ProcessVMReadv(os.Getpid(), local, []unix.RemoteIovec{{Base: address(p), Len: len(p)}}, 0)
	if err == nil && (n != len(p) || string(got) != string(p)) {
		t.Fatalf("process_vm_readv read %d bytes, %x", n, got)
	}
	byCall = err
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	_, byFile = mem.ReadAt(got, int64(address(p)))
	return byCall, byFile
}

func TestHiddenMemoryIsReadableByItsProcessOnly(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, n := range []int{64, 20000} {
			b := mustNew(t, n)
			copy(b.Bytes(), "may nobody else read this")
			byCall, byFile := othersRead(t, b.Bytes())
			if want := kindOf(b) == Hidden; (byCall != nil) != want || (byFile != nil) != want {
				t.Errorf("%d bytes, %v: process_vm_readv: %v; /proc/self/mem: %v", n, kindOf(b), byCall, byFile)
			}
		}
	})
}

func TestPolicyDecidesTheKind(t *testing.T) {
	needsHidden(t)
	old := fenced
	defer func() { fenced = old }()
	for _, fenced = range []bool{false, true} {
		for _, tc := range []struct {
			p    Policy
			n    int
			want Kind
		}{
			{Best, 64, Hidden}, {Insecure, 64, Hidden}, {MlockOnly, 64, Locked},
			{Best, maxHidden, Hidden}, {Best, maxHidden + 1, Locked}, {MlockOnly, maxHidden, Locked},
		} {
			restore := using(tc.p)
			before := Held()
			b, err := New(tc.n)
			if err != nil {
				t.Fatal(err)
			}
			after := Held()
			if got := kindOf(b); got != tc.want {
				t.Errorf("%v, %d bytes: %v memory, want %v", tc.p, tc.n, got, tc.want)
			}
			grown := map[Kind]int64{Hidden: after.Hidden - before.Hidden, Locked: after.Locked - before.Locked, Ordinary: after.Ordinary - before.Ordinary}
			for k, n := range grown {
				if (n >= int64(tc.n)) != (k == tc.want) || k != tc.want && n != 0 {
					t.Errorf("%v, %d bytes: %v memory grew by %d", tc.p, tc.n, k, n)
				}
			}
			b.Wipe()
			restore()
		}
	}
}

func TestPolicyNamesAreRead(t *testing.T) {
	for _, p := range []Policy{Best, MlockOnly, Insecure} {
		if got, err := ParsePolicy(p.String()); got != p || err != nil {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	for _, name := range []string{"", "Best", "none"} {
		if _, err := ParsePolicy(name); err == nil || !strings.Contains(err.Error(), "best, locked or insecure") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Beyond the limit the default refuses, and Insecure hands out ordinary memory,
// which is still in no dump and no child; all that can be locked is.
func TestInsecureLocksWhatItCan(t *testing.T) {
	const pages = 20
	limit := uint64(pages * pageSize)
	out := inChild(t, limit, func() {
		for _, p := range []Policy{Best, Insecure} {
			SetPolicy(p)
			var err error
			for range 4 * pages * pageSize / 128 {
				if _, err = New(64); err != nil {
					break
				}
			}
			u := Held()
			fmt.Println("result:", p, err != nil, u.Hidden+u.Locked, u.Ordinary > 0, u.Limit)
		}
		b, err := New(maxHidden + 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"dd", "wf"} {
			if !strings.Contains(smaps(t, address(b.Bytes()))["VmFlags"]+" ", want+" ") {
				t.Errorf("ordinary memory lacks the flag %s", want)
			}
		}
		fmt.Println("result: large is", kindOf(b))
	})
	for _, want := range []string{
		fmt.Sprintf("result: best true %d false %d\n", limit, limit),
		fmt.Sprintf("result: insecure false %d true %d\n", limit, limit),
		"result: large is ordinary\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("child printed\n%swant %s", out, want)
		}
	}
}

// What the kernel counts against the limit is what we count, and Held tells it.
func TestUsageIsTheKernelsOwnCount(t *testing.T) {
	out := inChild(t, 64*uint64(pageSize), func() {
		before := Held()
		if before.Process != 0 {
			t.Errorf("%d bytes are locked before anything is", before.Process)
		}
		for _, p := range []Policy{MlockOnly, Best} {
			SetPolicy(p)
			for n := 100; n < 20000; n *= 3 {
				if _, err := New(n); err != nil {
					t.Fatal(err)
				}
			}
			if u := Held(); u.Process != u.Hidden+u.Locked {
				t.Errorf("%v: the kernel counts %d bytes, we %d + %d", p, u.Process, u.Hidden, u.Locked)
			}
		}
		fmt.Println("result: told")
	})
	if !strings.Contains(out, "result: told") {
		t.Errorf("child printed\n%s", out)
	}
}

func TestRootOfTheMachineHasNoLimit(t *testing.T) {
	u := Held()
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		t.Fatal(err)
	}
	if u.Limit != -1 && u.Limit != int64(r.Cur) {
		t.Errorf("limit of %d bytes, RLIMIT_MEMLOCK is %d", u.Limit, r.Cur)
	}
	// The word on it is the kernel's.
	if u.Limit == -1 && r.Cur < 1<<30 {
		restore := using(MlockOnly)
		defer restore()
		b, err := New(int(r.Cur) + pageSize)
		if err != nil {
			t.Fatalf("Held tells of no limit, but %v", err)
		}
		b.Wipe()
	}
}

// Without a descriptor to be had, memory is locked but not hidden.
func TestHiddenMemoryFallsBackToLocked(t *testing.T) {
	out := inChild(t, 1<<20, func() {
		hidden()
		var r unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: r.Max}); err != nil {
			t.Fatal(err)
		}
		SetPolicy(Best)
		b, err := New(64)
		unix.Setrlimit(unix.RLIMIT_NOFILE, &r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("result:", kindOf(b))
		isProtected(t, b)
	})
	if !strings.Contains(out, "result: locked") {
		t.Errorf("child printed\n%s", out)
	}
}

// A sandbox may forbid memfd_secret, as that of containers does.
func TestForbiddenCallIsAMissingFeature(t *testing.T) {
	out := secrettest.WithLimit(t, 1<<20, func() {
		runtime.LockOSThread()
		forbid(t, unix.SYS_MEMFD_SECRET)
		SetPolicy(Best)
		b, err := New(64)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("result:", HasHidden(), kindOf(b))
		isProtected(t, b)
	})
	if !strings.Contains(out, "result: false locked") {
		t.Errorf("child printed\n%s", out)
	}
}

// forbid makes a system call fail with EPERM on this thread.
func forbid(t *testing.T, call uint32) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // nr of struct seccomp_data
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		t.Fatal(err)
	}
}
