package secret

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test program is also the programs that these tests start.
func TestMain(m *testing.M) {
	switch role := os.Getenv("SECRET_TEST_ROLE"); role {
	case "":
		os.Exit(m.Run())
	case "attacker":
		attack()
	default:
		be(role)
	}
}

const (
	openMark   = "a word that lies in common memory, for all to see"
	lockedMark = "a word that lies in locked memory and in no dump"
	hiddenMark = "a word that lies in hidden memory and in no dump"
)

// scramble keeps the marks themselves out of the program's memory and file.
func scramble(s string) []byte {
	b := []byte(s)
	for i := range b {
		b[i] ^= 0x2a
	}
	return b
}

var keep []byte // is in common memory

// be is a process with one word in common, one in locked and one in hidden memory.
// It tells where they are and waits for a line on standard input: then it ends, or
// aborts as a crash does. Its role is open, or secluded.
func be(role string) {
	must := func(err error) {
		if err != nil {
			fmt.Println("victim:", err)
			os.Exit(1)
		}
	}
	if role == "secluded" {
		must(Seclude())
	} else {
		unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0) // anybody, where Yama asks
	}
	fenced = true
	keep = scramble(openMark)
	SetPolicy(MlockOnly)
	locked, err := Copy(scramble(lockedMark))
	must(err)
	SetPolicy(Best)
	hid, err := Copy(scramble(hiddenMark))
	must(err)
	fmt.Println(address(keep), address(locked.Bytes()), address(hid.Bytes()), kindOf(hid))
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	if in.Text() == "crash" {
		panic("on purpose")
	}
	runtime.KeepAlive(locked)
}

// attack tries to read the memory of another process in every way there is, and
// prints what it got by each: the word in common, locked and hidden memory.
func attack() {
	runtime.LockOSThread() // ptrace is between threads
	var pid int
	var at [3]uintptr
	fmt.Sscan(os.Getenv("SECRET_TEST_VICTIM"), &pid, &at[0], &at[1], &at[2])
	read := func(how string, f func(at uintptr, p []byte) error) {
		for i, mark := range []string{openMark, lockedMark, hiddenMark} {
			p := make([]byte, len(mark))
			err := f(at[i], p)
			fmt.Printf("%s %d %v %v\n", how, i, bytes.Equal(p, scramble(mark)), err)
		}
	}
	read("readv", func(at uintptr, p []byte) error {
		local := []unix.Iovec{{Base: &p[0]}}
		local[0].SetLen(len(p))
		_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: at, Len: len(p)}}, 0)
		return err
	})
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	read("mem", func(at uintptr, p []byte) error {
		if err != nil {
			return err
		}
		_, err := mem.ReadAt(p, int64(at))
		return err
	})
	err = unix.PtraceAttach(pid)
	if err == nil {
		var status unix.WaitStatus
		_, err = unix.Wait4(pid, &status, unix.WALL, nil)
	}
	read("ptrace", func(at uintptr, p []byte) error {
		if err != nil {
			return err
		}
		_, err := unix.PtracePeekData(pid, at, p)
		return err
	})
	if err == nil {
		unix.PtraceDetach(pid)
	}
}

// A victim is a process that be runs.
type victim struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	where string // of the words
	err   bytes.Buffer
}

// program copies the test program to where any user may run it.
func program(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kws")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "t"), b, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o777) // for core files, too
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "t")
}

func as(cmd *exec.Cmd, uid int) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
}

func startVictim(t *testing.T, prog, role string, uid int) *victim {
	t.Helper()
	v := &victim{cmd: exec.Command(prog)}
	v.cmd.Env = []string{"SECRET_TEST_ROLE=" + role, "GOTRACEBACK=crash"}
	v.cmd.Dir = filepath.Dir(prog)
	v.cmd.Stderr = &v.err
	as(v.cmd, uid)
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the signal at the parent's death is that of its thread
	t.Cleanup(runtime.UnlockOSThread)
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.in.Close(); v.cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	var a, b, c uintptr
	var k string
	if n, _ := fmt.Sscan(line, &a, &b, &c, &k); err != nil || n != 4 {
		t.Fatalf("victim: %q, %v", line, err)
	}
	if k != "hidden" {
		needsHidden(t)
	}
	v.where = fmt.Sprint(v.cmd.Process.Pid, a, b, c)
	return v
}

func TestSecludedProcessIsReadByNobody(t *testing.T) {
	prog := program(t)
	uid := os.Getuid()
	if uid == 0 {
		uid = 65533 // root may trace whom it likes
	}
	type try struct {
		role string
		uid  int
		want string // what can be read: of common, locked and hidden memory
	}
	tries := []try{{"open", uid, "110"}, {"secluded", uid, "000"}}
	if os.Getuid() == 0 {
		tries = append(tries, try{"open", uid - 1, "000"}, try{"secluded", uid - 1, "000"}, try{"open", 0, "110"}, try{"secluded", 0, "110"})
	}
	for _, tc := range tries {
		t.Run(fmt.Sprintf("%s, by %d", tc.role, tc.uid), func(t *testing.T) {
			v := startVictim(t, prog, tc.role, uid)
			cmd := exec.Command(prog)
			cmd.Env = []string{"SECRET_TEST_ROLE=attacker", "SECRET_TEST_VICTIM=" + v.where}
			as(cmd, tc.uid)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("attacker: %v\n%s", err, out)
			}
			for _, how := range []string{"readv", "mem", "ptrace"} {
				for i, c := range tc.want {
					if want := fmt.Sprintf("%s %d %v ", how, i, c == '1'); !strings.Contains(string(out), want) {
						t.Errorf("attacker printed\n%swant %s", out, want)
					}
				}
			}
		})
	}
}

// A process that may write core files leaves one without its secrets; one that is
// secluded leaves none.
func TestCoreFileHoldsNoSecrets(t *testing.T) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &r); err != nil {
		t.Fatal(err)
	}
	old := r
	if r.Cur = r.Max; os.Getuid() == 0 {
		r = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &r); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &old)
	if r.Cur == 0 {
		t.Skip("this user may not write core files")
	}
	for _, role := range []string{"open", "secluded"} {
		t.Run(role, func(t *testing.T) {
			prog := program(t)
			v := startVictim(t, prog, role, os.Getuid())
			io.WriteString(v.in, "crash\n")
			v.cmd.Wait()
			status := v.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGABRT {
				t.Fatalf("the victim did not abort: %v\n%s", v.cmd.ProcessState, v.err.String())
			}
			for _, mark := range []string{openMark, lockedMark, hiddenMark} {
				if bytes.Contains(v.err.Bytes(), scramble(mark)) {
					t.Errorf("the trace shows %q", mark)
				}
			}
			if status.CoreDump() != (role == "open") {
				t.Errorf("core dumped: %v", status.CoreDump())
			}
			cores, err := filepath.Glob(filepath.Join(filepath.Dir(prog), "*core*"))
			if err != nil {
				t.Fatal(err)
			}
			if role == "secluded" {
				if len(cores) > 0 {
					t.Errorf("core files: %v", cores)
				}
				return
			}
			if len(cores) == 0 {
				pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
				t.Skipf("the kernel puts core files elsewhere (%s): what is in them is not looked at", bytes.TrimSpace(pattern))
			}
			core, err := os.ReadFile(cores[0])
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("core file of %d bytes", len(core))
			for mark, want := range map[string]bool{openMark: true, lockedMark: false, hiddenMark: false} {
				if bytes.Contains(core, scramble(mark)) != want {
					t.Errorf("core file: %q found: %v, want %v", mark, !want, want)
				}
			}
		})
	}
}
