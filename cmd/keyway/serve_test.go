package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyway/control"
	"keyway/test/spawn"
)

// The service manager holds the sockets: the daemon takes them by name and by
// address.
func TestServeTakesPassedSockets(t *testing.T) {
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, exported := filepath.Join(dir, "control"), filepath.Join(dir, "e.sock")
	config := "[device.d]\nbackend = \"mem:1M\"\n[export.d]\ndevice = \"d\"\nnbd = \"unix:e.sock\"\n"
	if err := os.WriteFile(filepath.Join(dir, "c.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	notify, err := spawn.NewNotify(filepath.Join(dir, "notify"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" serve --config c.toml --state st --socket nowhere/c.sock`, bin)
	for _, path := range []string{socket, exported} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	var log syncedBuffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log
	cmd.Env = []string{"HOME=" + dir, "LISTEN_FDS=2", "LISTEN_FDNAMES=control:e", notify.Env()}
	if err := spawn.Start(cmd); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	defer func() { cmd.Process.Kill(); <-done }()
	if err := notify.Ready(done, time.Minute); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a control socket was made beside the one that was passed")
	}
	c := control.Client{Socket: socket}
	l, err := c.Exports(context.Background())
	if err != nil || len(l) != 1 || l[0].State != "serving" {
		t.Errorf("exports at the passed control socket: %+v, %v\n%s", l, err, log.String())
	}
	conn, err := net.Dial("unix", exported)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	magic := make([]byte, 8)
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(magic); err != nil || string(magic) != "NBDMAGIC" {
		t.Errorf("the passed export socket says %q, %v", magic, err)
	}

	// No core dump: the limit is what children and crashes would see.
	limits, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/limits")
	if err != nil && os.Geteuid() == 0 {
		t.Error(err)
	}
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") && strings.Fields(line)[4] != "0" {
			t.Errorf("core dumps are possible: %s", line)
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("still there 30 s after SIGTERM")
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("status %d\n%s", code, log.String())
	}
}
