package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/test/spawn"
)

// A daemon that may lock a few pages refuses a key beyond them, and says what to
// do; told to be insecure it goes on, and says so at every key.
func TestKeysBeyondTheLimitAreRefusedUnlessInsecure(t *testing.T) {
	wrap := []string{"prlimit", "--memlock=32768:32768"}
	if os.Geteuid() == 0 { // CAP_IPC_LOCK lifts the limit
		wrap = append([]string{"setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"}, wrap...)
	}
	for _, tool := range []string{"setpriv", "prlimit"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("KEYWAY_CI") == "1" || os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, policy := range []string{"best", "locked", "insecure"} {
		t.Run(policy, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "kw")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := os.WriteFile(filepath.Join(dir, "c.toml"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			env := []string{"KEYWAY_SOCKET=" + filepath.Join(dir, "c.sock"), "HOME=" + dir}
			notify, err := spawn.NewNotify(filepath.Join(dir, "notify"))
			if err != nil {
				t.Fatal(err)
			}
			var log syncedBuffer
			args := append(append([]string{}, wrap...), bin, "serve", "--config", "c.toml", "--state", "st", "--key-memory", policy)
			server := exec.Command(args[0], args[1:]...)
			server.Dir, server.Env = dir, append(env, notify.Env())
			server.Stdout, server.Stderr = &log, &log
			if err := spawn.Start(server); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { server.Wait(); close(done) }()
			defer func() { server.Process.Kill(); <-done }()
			if err := notify.Ready(done, time.Minute); err != nil {
				t.Fatalf("%v\n%s", err, log.String())
			}
			run := func(stdin []byte, args ...string) (string, error) {
				cmd := exec.Command(filepath.Join(client, "keyway"), args...)
				cmd.Env, cmd.Dir, cmd.Stdin = env, dir, bytes.NewReader(stdin)
				b, err := cmd.CombinedOutput()
				return string(b), err
			}
			// Each takes at least 128 bytes; where all have pages of their own, a page.
			const most = 32768/128 + 1
			var out string
			taken := 0
			for i := range most {
				if out, err = run(newCanary("").raw, "key", "add", fmt.Sprint("k", i), "--mode", "AES-256-XTS", "-"); err != nil {
					break
				}
				taken++
				if strings.Contains(out, "warning: insecure key memory") {
					break
				}
			}
			if taken == 0 {
				t.Errorf("not even the first key was taken: %s", out)
			}
			info, infoErr := run(nil, "info", "--daemon")
			if infoErr != nil {
				t.Fatal(infoErr, info)
			}
			if want := "of 32768 bytes (RLIMIT_MEMLOCK)"; !strings.Contains(info, want) {
				t.Errorf("info --daemon printed\n%swant %q", info, want)
			}
			if policy == "insecure" {
				if err != nil || !strings.Contains(out, "may be written to swap") {
					t.Errorf("the last key: %v\n%s", err, out)
				}
				if !strings.Contains(info, "NOT LOCKED:") {
					t.Errorf("info --daemon printed\n%swant what is not locked", info)
				}
				if !strings.Contains(log.String(), "INSECURE key memory") {
					t.Errorf("the log has no warning:\n%s", log.String())
				}
				return
			}
			if err == nil {
				t.Fatalf("%d keys were taken", most)
			}
			for _, want := range []string{"RLIMIT_MEMLOCK is 32768 bytes", "hint: raise LimitMEMLOCK=", "--key-memory insecure"} {
				if !strings.Contains(out, want) {
					t.Errorf("the last key: %q lacks %q", out, want)
				}
			}
			if strings.Contains(info, "NOT LOCKED:") {
				t.Errorf("info --daemon printed\n%s", info)
			}
		})
	}
}
