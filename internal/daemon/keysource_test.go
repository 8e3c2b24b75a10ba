package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keyway/control"
)

// Who may control the daemon names sources that it reads again when it starts; none of
// them runs a program, asks somebody, or depends on where the daemon was started.
func TestDaemonKeepsHarmlessSourcesOnly(t *testing.T) {
	d, _ := start(t, nil)
	path := filepath.Join(t.TempDir(), "k")
	raw := make([]byte, 64)
	raw[0] = 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	add := func(name, from, file string) error {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = d.addKey(t.Context(), control.AddKey{Name: name, Mode: "AES-256-XTS", Source: "test", From: from, File: file}, f)
		return err
	}
	for from, want := range map[string]string{
		"exec:/bin/cat?arg=" + path: "runs programs of its configuration only",
		"-":                         "cannot read it by itself: it comes from standard input",
		"prompt:":                   "cannot read it by itself",
		"age:/k.age":                "a person has to give its passphrase",
		"file:k?encoding=hex":       "a path is not absolute",
		"luks:/k?key-file=k":        "a path is not absolute",
		"nonsense":                  "does not begin with a known scheme",
	} {
		if err := add("k", from, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", from, err, want)
		}
	}
	if err := add("k", "systemd:k", path); err == nil || !strings.Contains(err.Error(), "either file or from") {
		t.Errorf("two sources: %v", err)
	}
	if n := len(d.keys.List()); n != 0 {
		t.Errorf("%d keys have been added", n)
	}
	if err := add("k", "file:"+path, ""); err != nil {
		t.Error(err)
	}
}

// Nor does a state that somebody has written run one.
func TestStateRunsNoProgram(t *testing.T) {
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	mark := filepath.Join(dir, "mark")
	state := `{"version": 1, "devices": [], "exports": [], "keys": [
		{"name": "k", "mode": "AES-256-XTS", "data_unit": 4096, "dun_bytes": 8, "source": "test", "from": "exec:/usr/bin/touch?arg=` + mark + `"}]}`
	if err := os.MkdirAll(filepath.Join(dir, "st"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "st", stateFile), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	_, c := startIn(t, dir, nil)
	k, err := c.Key(t.Context(), "k")
	if err != nil || k.State != "missing" || !strings.Contains(k.Problem, "runs programs of its configuration only") {
		t.Errorf("%+v, %v", k, err)
	}
	if _, err := c.ReadKey(t.Context(), "k"); err == nil || !strings.Contains(err.Error(), "runs programs of its configuration only") {
		t.Errorf("again: %v", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the program has run")
	}
}

// The sources of a start are read side by side: each of these programs waits for the
// other.
func TestSourcesAreReadSideBySide(t *testing.T) {
	dir := t.TempDir()
	toml := ""
	for _, s := range [][3]string{{"a", "echo > a; read x < b"}, {"b", "read x < a; echo > b"}} {
		if err := unix.Mkfifo(filepath.Join(dir, s[0]), 0o600); err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\ncd " + dir + "\n" + s[1] + "\nhead -c 64 /dev/urandom\n"
		if err := os.WriteFile(filepath.Join(dir, s[0]+".sh"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		toml += "[key." + s[0] + "]\nmode = \"AES-256-XTS\"\nsource = \"exec:./" + s[0] + ".sh\"\n"
	}
	c, err := ParseConfig([]byte(toml), "test", dir)
	if err != nil {
		t.Fatal(err)
	}
	_, client := start(t, c)
	keys, err := client.Keys(t.Context())
	if err != nil || len(keys) != 2 || keys[0].State != "present" || keys[1].State != "present" {
		t.Errorf("%+v, %v", keys, err)
	}
}
