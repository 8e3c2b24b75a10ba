package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyway/test/spawn"
)

// A session is a keyway command at a terminal of its own.
type session struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	out    syncedBuffer
	seen   int // bytes of out that were waited for
	done   chan struct{}
}

func atTerminal(t *testing.T, dir string, args ...string) *session {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, cmd: exec.Command(bin, args...), master: master, done: make(chan struct{})}
	s.cmd.Dir, s.cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + clientPath(t)}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := spawn.Start(s.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			s.out.Write(b[:n])
			if err != nil { // EIO: nobody has the terminal any more
				break
			}
		}
	}()
	go func() { s.cmd.Wait(); close(s.done) }()
	t.Cleanup(func() { s.cmd.Process.Kill(); <-s.done })
	return s
}

// waitFor waits until text appears behind what was waited for before.
func (s *session) waitFor(text string) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		out := s.out.String()
		if i := strings.Index(out[s.seen:], text); i >= 0 {
			s.seen += i + len(text)
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%q does not appear in:\n%s", text, out)
		}
	}
}

func (s *session) answer(prompt, text string) {
	s.t.Helper()
	s.waitFor(prompt)
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// ends wants the exit status, and text at the end.
func (s *session) ends(code int, text string) {
	s.t.Helper()
	s.waitFor(text)
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		s.t.Fatalf("it does not end:\n%s", s.out.String())
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("status %d, want %d:\n%s", got, code, s.out.String())
	}
}

// At a terminal a new passphrase is asked for twice, a wrong one again, and what
// destroys wants a yes; nothing that is typed is shown.
func TestLUKSAsksAtATerminal(t *testing.T) {
	dir := shortDir(t)
	image := filepath.Join(dir, "v.img")
	kdf := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	run := func(args ...string) *session { return atTerminal(t, dir, append([]string{"luks"}, args...)...) }
	with := func(args ...string) *session { return run(append(args, kdf...)...) }

	s := with("format", "v.img", "--size", "3M", "--offset", "6080")
	s.answer("new passphrase of v.img: ", "hunter-one\n")
	s.answer("again: ", "hunter-two\n")
	s.ends(1, "the two passphrases differ: nothing is changed")
	if _, err := os.Stat(image); err == nil {
		t.Error("a file is left of what was not formatted")
	}

	s = with("format", "v.img", "--size", "3M", "--offset", "6080")
	s.answer("new passphrase of v.img: ", "hunter-one\n")
	s.answer("again: ", "hunter-one\n")
	s.ends(0, "LUKS2 volume ")

	// A wrong one is asked for again, three times in all.
	s = with("add-key", "v.img")
	s.answer("a passphrase of v.img: ", "wrong\n")
	s.waitFor("no keyslot opens with this passphrase")
	s.answer("a passphrase of v.img: ", "hunter-one\n")
	s.answer("new passphrase of v.img: ", "hunter-two\n")
	s.answer("again: ", "hunter-two\n")
	s.ends(0, "keyslot 1 opens with the new passphrase")
	if strings.Contains(s.out.String(), "hunter") {
		t.Errorf("what was typed is shown:\n%s", s.out.String())
	}
	s = run("remove-key", "v.img")
	for range tries {
		s.answer("passphrase to remove from v.img: ", "wrong\n")
	}
	s.ends(1, "error: v.img: luks: no keyslot opens with this passphrase")

	before, _ := contents(t, image)
	for _, no := range []string{"no\n", "\n", "y\n"} {
		s = run("kill-slot", "v.img", "1")
		s.waitFor("the passphrase of keyslot 1 will open nothing any more; keyslots left: 1.")
		s.answer("Type yes to go on: ", no)
		s.ends(1, "not confirmed: nothing is changed")
	}
	s = with("format", "v.img", "--offset", "6080")
	s.waitFor("v.img would lose its LUKS2 header, UUID ")
	s.answer("Type yes to go on: ", "no\n")
	s.ends(1, "not confirmed: nothing is changed")
	// Interrupted at the prompt, the terminal shows again what is typed.
	s = with("change-key", "v.img")
	s.answer("old passphrase of v.img: ", "\x03")
	s.ends(1, "interrupted: nothing is changed")
	if after, _ := contents(t, image); !bytes.Equal(before, after) {
		t.Error("the image changed, and nobody said yes")
	}
	if term, err := unix.IoctlGetTermios(int(s.master.Fd()), unix.TCGETS); err != nil || term.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal shows nothing any more: %v", err)
	}
	s = run("kill-slot", "v.img", "1")
	s.answer("Type yes to go on: ", "yes\n")
	s.ends(0, "keyslot 1 is gone")
}
