package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/internal/daemon"
	"keyway/test/fixtures"
	"keyway/test/spawn"
)

// blocks returns the code blocks of the README that are marked so.
func blocks(t *testing.T, mark string) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, part := range strings.Split(string(text), "```"+mark+"\n")[1:] {
		body, _, _ := strings.Cut(part, "```")
		all = append(all, body)
	}
	if len(all) == 0 {
		t.Fatalf("no block is marked %q", mark)
	}
	return all
}

func TestReadmeTourWorks(t *testing.T) {
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keyway.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	vault := luksDisk(t, "luks2-argon2id")
	phone := fsImage(t, "ext4", "ext4-1k")
	for name, b := range map[string][]byte{
		"vault.img": vault.Image.Bytes(t), "vault.key": vault.Key(0),
		"phone.img": phone.Disk(t, "a"), "user.key": fixtures.Hex(phone.Directories[0].MasterKey),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	notify, err := spawn.NewNotify(filepath.Join(dir, "notify"))
	if err != nil {
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
	tried := map[string]bool{}
	for _, block := range blocks(t, "sh tour") {
		for line := range strings.Lines(block) {
			cmd := exec.Command("sh", "-c", line)
			cmd.Dir, cmd.Env = dir, env
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", strings.TrimSpace(line), err, out)
			}
			_, after, _ := strings.Cut(line, "keyway ")
			word, _, _ := strings.Cut(after, " ")
			tried[strings.TrimSpace(word)] = true
		}
	}
	// The tour shows every command.
	for _, c := range newRoot().Commands() {
		if name := c.Name(); !tried[name] && name != "serve" && name != "help" {
			t.Errorf("the tour does not show %q", name)
		}
	}
}

func TestReadmeConfigurationIsValid(t *testing.T) {
	for _, block := range blocks(t, "toml config") {
		c, err := daemon.ParseConfig([]byte(block), "README.md", "/dir")
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Devices) != 2 || len(c.Keys) != 1 || len(c.Exports) != 1 {
			t.Errorf("%d devices, %d keys, %d exports", len(c.Devices), len(c.Keys), len(c.Exports))
		}
	}
}
