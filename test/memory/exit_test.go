package memory

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"keyway/test/harness"
)

// atExit runs a command, and calls f when it ends, while its memory is still there: its
// first thread then stands still behind the last instruction, and there are no others.
func atExit(t *testing.T, cmd *exec.Cmd, f func(pid int)) {
	t.Helper()
	runtime.LockOSThread() // the one that traces
	defer runtime.UnlockOSThread()
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	looked := false
	for first := true; ; first = false {
		var s unix.WaitStatus
		if _, err := unix.Wait4(pid, &s, unix.WALL, nil); err == unix.EINTR {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		signal := 0
		switch {
		case s.Exited() || s.Signaled():
			if !looked || s.ExitStatus() != 0 {
				t.Errorf("%v ends with %v, looked at: %v\n%s", cmd.Args, s, looked, said.String())
			}
			_ = cmd.Wait() // it has ended: this closes pipes
			return
		case first:
			if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT|unix.PTRACE_O_EXITKILL); err != nil {
				t.Fatal(err)
			}
		case s.StopSignal() == unix.SIGTRAP && s.TrapCause() == unix.PTRACE_EVENT_EXIT:
			looked = true
			f(pid)
		case s.StopSignal() != unix.SIGTRAP:
			signal = int(s.StopSignal())
		}
		if err := unix.PtraceCont(pid, signal); err != nil {
			t.Fatal(err)
		}
	}
}

// A command that ends has wiped what it knew. In hidden memory nobody can look, and the
// large areas of LUKS are in locked memory.
func TestCommandsEndWithoutKeys(t *testing.T) {
	needRoot(t)
	im := format(t, "luks2", small("argon2id")...)
	old := format(t, "luks1", small("pbkdf2")...)
	fresh := image{filepath.Join(harness.Dir(t), "fresh"), passphrase(), random(64), 0}
	added, changed := im, old
	added.passphrase, added.number = passphrase(), 1
	changed.passphrase, changed.number = passphrase(), 1
	key := random(64)
	file := func(b []byte) string { return writeFile(t, "secret", b) }
	cheap := []string{"--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "1024", "--pbkdf-parallel", "2"}
	for _, c := range []struct {
		name   string
		args   []string
		input  []byte
		images []image // whose secrets it had, when it has ended
	}{
		{"luks format", append([]string{"luks", "format", fresh.path, "--size", "20M", "--key-file", "-", "--volume-key-file", file(fresh.key)}, cheap...),
			fresh.passphrase, []image{fresh}},
		{"luks open", []string{"luks", "open", old.path, "old"}, append(bytes.Clone(old.passphrase), '\n'), []image{old}},
		{"luks add-key", append([]string{"luks", "add-key", im.path, "--new-key-file", file(added.passphrase)}, cheap...),
			append(bytes.Clone(im.passphrase), '\n'), []image{im, added}},
		{"luks change-key", []string{"luks", "change-key", old.path, "--pbkdf-force-iterations", "1000", "--key-slot", "0"},
			append(append(append(bytes.Clone(old.passphrase), '\n'), changed.passphrase...), '\n'), []image{changed}},
		{"key add", []string{"key", "add", "k", "--mode", "AES-256-XTS", "-"}, key, nil},
		{"create", []string{"create", "d", "--table", "-"}, fmt.Appendf(nil, "0 2048 crypt aes-xts-plain64 %x 0 leaf 0\n", key), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wait(t)
			go func() {
				for range w.came {
				}
			}()
			close(w.goOn)
			cmd := exec.Command(harness.Binary(t), c.args...)
			cmd.Env = append(os.Environ(), "KEYWAY_SOCKET="+w.socket)
			cmd.Stdin = pipe(t, c.input)
			atExit(t, cmd, func(pid int) {
				var s Set
				s.AddXTS("key", key)
				s.AddBytes("passphrase that was changed", old.passphrase)
				s.AddBytes("no secret", []byte(w.socket))
				for i, im := range c.images {
					im.addTo(t, &s, fmt.Sprint("image ", i))
				}
				rep, err := Process(pid, &s)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d MB, %d needles", rep.Bytes>>20, s.Len())
				known := len(rep.Hits)
				rep.Hits = slices.DeleteFunc(rep.Hits, func(h Hit) bool { return h.Secret == "no secret" })
				if known == len(rep.Hits) {
					t.Error("the command's environment is not found: the test is blind")
				}
				if len(rep.Hits) > 0 {
					t.Errorf("keys are in memory at the end:\n%s", Describe(rep.Hits))
				}
			})
		})
	}
}
