// Package harness starts the real keyway binary for tests, drives it by its
// command line, kills it, starts it again, and shows its log when a test fails.
// Nothing that it starts outlives the test process.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyway/test/spawn"
)

// StartTimeout bounds the time from exec to READY=1. The race build on a busy
// two-core machine needs about a second.
const StartTimeout = time.Minute

// CI tells whether missing tools are failures: they are where the result counts.
func CI() bool { return os.Getenv("KEYWAY_CI") == "1" || os.Getenv("CI") == "true" }

// Soak returns how long endurance tests run: KEYWAY_SOAK (a duration), else d.
func Soak(tb testing.TB, d time.Duration) time.Duration {
	s := os.Getenv("KEYWAY_SOAK")
	if s == "" {
		return d
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		tb.Fatalf("KEYWAY_SOAK: %v", err)
	}
	return v
}

// Need skips the test, or fails it in CI, unless every tool is installed.
func Need(tb testing.TB, tools ...string) {
	tb.Helper()
	for _, t := range tools {
		if _, err := exec.LookPath(t); err == nil {
			continue
		}
		if CI() {
			tb.Fatalf("%s is not installed, and here that is a failure: run scripts/install-tools", t)
		}
		tb.Skipf("%s is not installed: scripts/install-tools installs what these tests need", t)
	}
}

// Root returns the top directory of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

var build = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("KEYWAY_BINARY"); bin != "" {
		return bin, nil
	}
	dir, err := os.MkdirTemp("", "kwbin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "keyway")
	args := []string{"build", "-o", bin}
	if os.Getenv("KEYWAY_RACE") == "1" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/keyway")...)
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/keyway: %w\n%s", err, out)
	}
	return bin, nil
})

// Main is the body of a TestMain: it builds the binary once, runs the tests and
// removes what it built.
func Main(m *testing.M) {
	bin, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		os.Exit(1)
	}
	code := m.Run()
	if os.Getenv("KEYWAY_BINARY") == "" {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// Binary returns the path of the keyway binary under test.
func Binary(tb testing.TB) string {
	tb.Helper()
	bin, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return bin
}

// Dir returns a new directory whose path is short enough for Unix sockets (108
// bytes with the name), removed with the test.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// A Daemon is one `keyway serve` with a state directory of its own.
type Daemon struct {
	tb     testing.TB
	Dir    string // scratch of the test; the daemon's working directory
	Socket string // control socket
	State  string // state directory
	Config string // configuration file; empty on the first start unless the test wrote it

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has been reaped
	log    *syncBuffer
}

// Start starts a daemon with an empty configuration and waits until it is ready.
// It ends with the test; if the test failed, its log is printed.
func Start(tb testing.TB) *Daemon {
	tb.Helper()
	return StartConfig(tb, "")
}

// StartConfig is Start with the text of a configuration.
func StartConfig(tb testing.TB, toml string) *Daemon {
	tb.Helper()
	d := New(tb)
	d.WriteConfig(toml)
	d.Begin()
	return d
}

// New prepares a daemon without starting it.
func New(tb testing.TB) *Daemon {
	tb.Helper()
	dir := Dir(tb)
	d := &Daemon{
		tb: tb, Dir: dir, log: new(syncBuffer),
		Socket: filepath.Join(dir, "control.sock"),
		State:  filepath.Join(dir, "state"),
		Config: filepath.Join(dir, "keyway.toml"),
	}
	tb.Cleanup(func() {
		d.Kill()
		if tb.Failed() {
			tb.Logf("log of the daemon:\n%s", d.log.tail(200))
		}
	})
	return d
}

// WriteConfig replaces the configuration for the next start.
func (d *Daemon) WriteConfig(toml string) {
	d.tb.Helper()
	if err := os.WriteFile(d.Config, []byte(toml), 0o600); err != nil {
		d.tb.Fatal(err)
	}
}

// Begin starts the daemon, again after Kill or Term, and fails the test unless it
// reports READY=1.
func (d *Daemon) Begin() {
	d.tb.Helper()
	if err := d.TryBegin(); err != nil {
		d.tb.Fatalf("keyway serve: %v\n%s", err, d.log.tail(40))
	}
}

// TryBegin is Begin for tests that expect a refusal.
func (d *Daemon) TryBegin() error {
	notify, err := spawn.NewNotify(filepath.Join(d.Dir, "notify"))
	if err != nil {
		return err
	}
	d.cmd = exec.Command(Binary(d.tb), "serve", "--config", d.Config, "--state", d.State, "--socket", d.Socket)
	d.cmd.Dir = d.Dir
	d.cmd.Env = append(d.env(), notify.Env())
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.WaitDelay = 5 * time.Second // whoever else holds its output must not hold us
	if err := spawn.Start(d.cmd); err != nil {
		return err
	}
	exited := make(chan struct{})
	d.exited = exited
	cmd := d.cmd
	go func() { cmd.Wait(); close(exited) }()

	if err := notify.Ready(exited, StartTimeout); err != nil {
		d.Kill()
		return fmt.Errorf("%w: %v", err, cmd.ProcessState)
	}
	return nil
}

// env is what the daemon and its commands see: nothing of the tester's own.
func (d *Daemon) env() []string {
	e := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.Dir, "XDG_RUNTIME_DIR=" + d.Dir, "LC_ALL=C"}
	if _, ok := os.LookupEnv("GORACE"); !ok {
		// For the race build: end at a race, do not linger a second at every exit.
		e = append(e, "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	}
	for _, k := range []string{"GOTRACEBACK", "GORACE", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(k); ok {
			e = append(e, k+"="+v)
		}
	}
	return e
}

// Pid returns the process id of the running daemon.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Log returns what the daemon printed so far.
func (d *Daemon) Log() string { return d.log.String() }

// Kill ends the daemon as a power cut would, and waits for it. Harmless when it
// is not running.
func (d *Daemon) Kill() {
	if d.exited == nil {
		return
	}
	d.cmd.Process.Kill()
	<-d.exited
}

// Term asks the daemon to drain (SIGTERM) and returns its exit status and the
// time it took. A daemon that is still there after limit is killed and fails the
// test.
func (d *Daemon) Term(limit time.Duration) (code int, took time.Duration) {
	d.tb.Helper()
	start := time.Now()
	d.cmd.Process.Signal(syscall.SIGTERM)
	if !d.Exited(limit) {
		d.Kill()
		d.tb.Fatalf("daemon still running %v after SIGTERM", limit)
	}
	return d.cmd.ProcessState.ExitCode(), time.Since(start)
}

// Exited tells whether the daemon ends within limit.
func (d *Daemon) Exited(limit time.Duration) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-d.exited:
		return true
	case <-timeout.C:
		return false
	}
}

// A Result is what one command did.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs a keyway command against the daemon. It fails the test only when the
// command cannot be run or does not end within two minutes.
func (d *Daemon) Run(args ...string) Result {
	d.tb.Helper()
	return d.RunInput("", args...)
}

// RunInput is Run with standard input.
func (d *Daemon) RunInput(stdin string, args ...string) Result {
	d.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(d.tb), args...)
	cmd.Env = append(d.env(), "KEYWAY_SOCKET="+d.Socket)
	cmd.Dir = d.Dir
	cmd.Stdin = strings.NewReader(stdin)
	return finish(d.tb, ctx, cmd)
}

// OK runs a keyway command that must succeed and returns its standard output.
func (d *Daemon) OK(args ...string) string {
	d.tb.Helper()
	return d.OKInput("", args...)
}

// OKInput is OK with standard input.
func (d *Daemon) OKInput(stdin string, args ...string) string {
	d.tb.Helper()
	r := d.RunInput(stdin, args...)
	if r.Code != 0 {
		d.tb.Fatalf("keyway %s: exit status %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Tool runs a foreign program, at most two minutes, and returns what it did.
func Tool(tb testing.TB, name string, args ...string) Result {
	tb.Helper()
	return ToolFor(tb, 2*time.Minute, nil, name, args...)
}

// ToolFor is Tool with a time limit and additions to the environment.
func ToolFor(tb testing.TB, limit time.Duration, env []string, name string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// Debian's directories first: nbdsh must find Debian's python3.
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin:"+os.Getenv("PATH"), "LC_ALL=C")
	cmd.Env = append(cmd.Env, env...)
	return finish(tb, ctx, cmd)
}

// ToolOK is Tool for a program that must succeed; it returns standard output.
func ToolOK(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	r := Tool(tb, name, args...)
	if r.Code != 0 {
		tb.Fatalf("%s %s: exit status %d\n%s%s", name, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func finish(tb testing.TB, ctx context.Context, cmd *exec.Cmd) Result {
	tb.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// Grandchildren that keep the pipes open must not hold the test.
	cmd.WaitDelay = 5 * time.Second
	if err := spawn.Start(cmd); err != nil {
		tb.Fatal(err)
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		tb.Fatalf("%s: killed at its time limit\n%s%s", strings.Join(cmd.Args, " "), out.String(), errs.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}
