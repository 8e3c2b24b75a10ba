package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyway/internal/secret"
	"keyway/test/harness"
	"keyway/test/spawn"
)

// panicOnSignal is keyway with a fault: at SIGUSR1 it panics with a secret in hand.
func panicOnSignal() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	go func() {
		<-c
		b, err := secret.Copy(bytes.Repeat([]byte{0xa7}, 64))
		if err != nil {
			panic(err)
		}
		panic(fmt.Errorf("on purpose, with %v and %x", b, b))
	}()
	main()
}

// abortsWithCore reports whether a process that aborts here writes a core.
func abortsWithCore(t *testing.T, dir string) bool {
	t.Helper()
	sleeper := exec.Command("cat") // until its input ends
	sleeper.Dir = dir
	in, err := sleeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := spawn.Start(sleeper); err != nil {
		t.Fatal(err)
	}
	sleeper.Process.Signal(syscall.SIGABRT)
	sleeper.Wait()
	return sleeper.ProcessState.Sys().(syscall.WaitStatus).CoreDump()
}

// TestCrashesShowNoKeys crashes a daemon that serves with three keys in every way
// that makes the runtime print stacks and the kernel write a core, and looks for
// the keys in what was printed and written, and for a core at all.
func TestCrashesShowNoKeys(t *testing.T) {
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &core)
	most := unix.Rlimit{Cur: core.Max, Max: core.Max}
	if os.Geteuid() == 0 {
		most = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &most); err != nil {
		t.Fatal(err)
	}
	coresHere := abortsWithCore(t, t.TempDir())
	if !coresHere {
		t.Log("no process may write a core file here: that the daemon does not shows nothing")
	}
	for _, tc := range []struct {
		name, program string
		signal        syscall.Signal
		want          string // in what the runtime prints
	}{
		{"panic", "keyway-panics", syscall.SIGUSR1, "on purpose, with secret(64 bytes) and secret(64 bytes)"},
		{"SIGQUIT", "keyway", syscall.SIGQUIT, "SIGQUIT: quit"},
		{"SIGSEGV", "keyway", syscall.SIGSEGV, "SIGSEGV: segmentation violation"},
		{"SIGABRT", "keyway", syscall.SIGABRT, "SIGABRT: abort"},
	} {
		t.Run(tc.name, func(t *testing.T) { crash(t, tc.program, tc.signal, tc.want) })
	}
}

func crash(t *testing.T, program string, signal syscall.Signal, want string) {
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	key, piped := newCanary("file key"), newCanary("piped key")
	keyDir := t.TempDir() // what is in dir is looked at
	if err := os.WriteFile(filepath.Join(keyDir, "k.key"), key.raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bin, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"KEYWAY_SOCKET=" + filepath.Join(dir, "c.sock"), "HOME=" + dir, "GOTRACEBACK=crash"}
	notify, err := spawn.NewNotify(filepath.Join(dir, "notify"))
	if err != nil {
		t.Fatal(err)
	}
	var out syncedBuffer
	server := exec.Command(bin, "serve", "--config", "c.toml", "--state", "st", "--log-level", "debug")
	server.Dir, server.Env = dir, append(env, notify.Env())
	server.Stdout, server.Stderr = &out, &out
	if err := spawn.Start(server); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { server.Wait(); close(done) }()
	defer func() { server.Process.Kill(); <-done }()
	if err := notify.Ready(done, time.Minute); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	client, err := clientDir()
	if err != nil {
		t.Fatal(err)
	}
	run := func(stdin []byte, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(client, "keyway"), args...)
		cmd.Env, cmd.Dir, cmd.Stdin = env, dir, bytes.NewReader(stdin)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("keyway %v: %v\n%s", args, err, b)
		}
	}
	run(nil, "create", "disk", "--backend", "mem:4M", "--engine", "cpu")
	run(nil, "key", "add", "k", "--mode", "AES-256-XTS", "--file", filepath.Join(keyDir, "k.key"))
	run(piped.raw, "key", "add", "p", "--mode", "AES-256-XTS", "-")
	for name, key := range map[string]string{"v": "k", "w": "p"} {
		run(fmt.Appendf(nil, "0 2048 default-key aes-xts-plain64 :64:logon:%s 0 disk 0 2 sector_size:4096 iv_large_sectors\n", key),
			"create", name, "--table", "-")
		run(nil, "export", "add", name, "--nbd", "unix:"+name+".sock")
		// The crash comes while requests are served, with keys in use.
		c, err := harness.DialNBD("unix", filepath.Join(dir, name+".sock"), name)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 4096)
		rand.Read(data)
		if code, err := c.Do(harness.NBDWrite, 0, 0, 0, data); code != 0 || err != nil {
			t.Fatalf("write: NBD error %d, %v", code, err)
		}
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			for {
				if _, err := c.Do(harness.NBDWrite, 0, 0, 0, data); err != nil {
					return
				}
			}
		}()
		defer func() { c.Close(); <-stop }()
	}
	server.Process.Signal(signal)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the daemon is still there a minute after the crash")
	}
	if status := server.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.CoreDump() {
		t.Errorf("the daemon ended with %v, core dumped: %v", server.ProcessState, status.CoreDump())
	}
	text := out.String()
	if !strings.Contains(text, want) || strings.Count(text, "\ngoroutine ") < 3 {
		t.Errorf("the daemon printed\n%s\nwant %q and goroutines", text, want)
	}
	held := canary{"key in the hand of the panic", bytes.Repeat([]byte{0xa7}, 64)}
	look := func(where string, b []byte) {
		t.Helper()
		for _, c := range []canary{key, piped, held} {
			if found := c.find(b); found != "" {
				t.Errorf("%s: %s", where, found)
			}
		}
		// Eight bytes are a word of a register or of a stack, as the trace shows them.
		for _, c := range []canary{key, piped} {
			for i := 0; i+8 <= len(c.raw); i += 8 {
				if word := c.raw[i : i+8]; bytes.Contains(b, fmt.Appendf(nil, "0x%x", littleEndian(word))) || bytes.Contains(b, fmt.Appendf(nil, "0x%x", word)) {
					t.Errorf("%s: word %d of %s", where, i/8, c.name)
				}
			}
		}
	}
	look("trace", []byte(text))
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if strings.Contains(e.Name(), "core") {
			t.Errorf("a core file: %s", p)
		}
		b, err := os.ReadFile(p)
		look(p, b)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func littleEndian(word []byte) (n uint64) {
	for i, b := range word {
		n |= uint64(b) << (8 * i)
	}
	return n
}
