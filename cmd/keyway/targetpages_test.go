package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/test/spawn"
)

// TestTargetPagesWork runs the examples in the manual pages of the targets, each
// page against a daemon of its own: the blocks marked "sh example", in turn.
func TestTargetPagesWork(t *testing.T) {
	pages, err := filepath.Glob("../../doc/targets/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages (%v)", err)
	}
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) { runPage(t, bin, page) })
	}
}

func runPage(t *testing.T, bin, page string) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "```sh example\n")[1:]
	if len(parts) == 0 {
		t.Fatal("no block is marked \"sh example\"")
	}
	dir, err := os.MkdirTemp("", "kw") // short: a path of a Unix socket has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	notify, err := spawn.NewNotify(filepath.Join(dir, "notify"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keyway.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"KEYWAY_SOCKET=" + filepath.Join(dir, "c.sock"), "HOME=" + dir, "PATH=" + clientPath(t)}
	server := exec.Command(bin, "serve", "--config", "keyway.toml", "--state", "st")
	server.Dir, server.Env = dir, append(env, notify.Env())
	var log syncedBuffer
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
	for _, part := range parts {
		block, _, _ := strings.Cut(part, "```")
		for line := range strings.Lines(block) {
			cmd := exec.Command("timeout", "60", "sh", "-ec", line)
			cmd.Dir, cmd.Env = dir, env
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", strings.TrimSpace(line), err, out)
			} else if testing.Verbose() {
				t.Logf("%s\n%s", strings.TrimSpace(line), out)
			}
		}
	}
}
