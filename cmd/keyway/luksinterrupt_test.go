package main

import (
	"bytes"
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

// A command that waits for the end of a passphrase ends by a signal, from whatever
// descriptor the passphrase comes, and has changed nothing.
func TestLUKSInterruptedWhileAPassphraseIsRead(t *testing.T) {
	dir := shortDir(t)
	kdf := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + clientPath(t)}
		return cmd
	}
	pass := filepath.Join(dir, "pass")
	if err := os.WriteFile(pass, []byte("the first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(append([]string{"luks", "format", "v.img", "--size", "3M", "--offset", "6080", "--key-file", pass}, kdf...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	image := filepath.Join(dir, "v.img")
	before, _ := contents(t, image)
	for _, args := range [][]string{
		{"luks", "open", "v.img", "v", "--key-fd", "3"},
		{"luks", "add-key", "v.img", "--key-fd", "3", "--new-key-file", pass},
		{"luks", "add-key", "v.img", "--key-file", pass, "--new-key-fd", "3"},
		{"luks", "change-key", "v.img", "--key-fd", "3", "--new-key-file", pass},
		{"luks", "remove-key", "v.img", "--key-fd", "3", "--yes", "--last"},
		{"luks", "format", "v.img", "--offset", "6080", "--key-fd", "3", "--yes"},
		{"serve", "v.img", "--key-fd", "3"},
	} {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.WriteString("the beg"); err != nil {
			t.Fatal(err)
		}
		cmd := run(args...)
		cmd.ExtraFiles = []*os.File{out}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := spawn.Start(cmd); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { cmd.Wait(); close(done) }()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			// It waits for more when it has taken what there was.
			n, err := unix.IoctlGetInt(int(out.Fd()), unix.TIOCINQ)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 || time.Now().After(end) {
				break
			}
		}
		cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Errorf("keyway %q does not end by SIGINT", args)
			cmd.Process.Kill()
			<-done
		}
		in.Close()
		out.Close()
		want := "interrupted: nothing is changed"
		if args[0] == "serve" {
			want = "signal interrupt"
		}
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errs.String(), want) {
			t.Errorf("keyway %q: status %d\n%s", args, code, errs.String())
		}
		if after, _ := contents(t, image); !bytes.Equal(before, after) {
			t.Fatalf("keyway %q: the image changed", args)
		}
	}
}
