package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"keyway/control"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv("KEYWAY_TEST_CONNECT"); socket != "" {
		c := control.Client{Socket: socket}
		if _, err := c.Version(context.Background()); err != nil {
			if e, ok := errors.AsType[*control.Error](err); ok {
				err = fmt.Errorf("%w; %s", err, e.Hint)
			}
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// start starts a daemon in a directory whose path is short enough for sockets.
func start(t *testing.T, c *Config) (*Daemon, *control.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return startIn(t, dir, c)
}

func startIn(t *testing.T, dir string, c *Config) (*Daemon, *control.Client) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(&testLog{t: t}, nil))
	o := Options{Config: c, State: filepath.Join(dir, "st"), Socket: filepath.Join(dir, "c.sock"), Version: "test", Log: log}
	d, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, d) })
	return d, &control.Client{Socket: o.Socket, Timeout: time.Minute}
}

// stop closes the daemon, at most once.
func stop(t *testing.T, d *Daemon) {
	t.Helper()
	if d.ending.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

type testLog struct {
	mu sync.Mutex
	t  *testing.T
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.t.Output(), "%s", p)
	return len(p), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, c *control.Client, r control.Create) {
	t.Helper()
	_, err := c.Create(t.Context(), r)
	must(t, err)
}

// The end of a call's context ends the call in the daemon, with everything as
// it was before.
func TestCallEndsWithItsClient(t *testing.T) {
	_, c := start(t, nil)
	create(t, c, control.Create{Name: "a", Backend: "mem:1M"})
	if _, err := c.Wait(t.Context(), "a", 1<<40); err != nil {
		t.Errorf("wait for another number than that: %v", err)
	}
	d, err := c.Device(t.Context(), "a")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx, "a", d.Event); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for what does not happen: %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestWaitEndsWithTheDaemon(t *testing.T) {
	d, c := start(t, nil)
	create(t, c, control.Create{Name: "a", Backend: "mem:1M"})
	dev, err := c.Device(t.Context(), "a")
	must(t, err)
	ended := make(chan error)
	go func() {
		_, err := c.Wait(context.Background(), "a", dev.Event)
		ended <- err
	}()
	for v, _ := d.find("a"); ; time.Sleep(time.Millisecond) {
		if n := d.waiting.Load(); n > 0 && v != nil {
			break
		}
	}
	begin := time.Now()
	stop(t, d)
	if took := time.Since(begin); took > controlGrace {
		t.Errorf("the end took %v: it waited for the waiter", took)
	}
	if err := <-ended; err == nil {
		t.Error("the waiter was told of an event")
	}
}

// Two tables, old and new, of one reload name the same file.
func TestReloadSharesABackendNamedByURI(t *testing.T) {
	_, c := start(t, nil)
	file := filepath.Join(t.TempDir(), "x.img")
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	create(t, c, control.Create{Name: "m", Table: "0 1024 linear " + file + " 0\n"})
	for i := range 20 {
		_, err := c.Reload(t.Context(), "m", control.Load{Table: fmt.Sprintf("0 1024 linear %s %d\n", file, i*8)})
		must(t, err)
	}
	if _, err := c.Remove(t.Context(), "m", control.Remove{}); err != nil {
		t.Fatal(err)
	}
	create(t, c, control.Create{Name: "leaf", Backend: "file:" + file}) // nobody holds its lock
}

// Tables that come and go at the same time as their backend.
func TestBackendByURIComesAndGoes(t *testing.T) {
	d, c := start(t, nil)
	file := filepath.Join(t.TempDir(), "x.img")
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	var wg sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprintf("m%d", i)
		wg.Go(func() {
			for range 25 {
				if _, err := c.Create(t.Context(), control.Create{Name: name, Table: "0 8 linear " + file + " 0\n"}); err != nil {
					t.Error(err)
					return
				}
				if _, err := c.Remove(t.Context(), name, control.Remove{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.implicit) != 0 || len(d.devices) != 0 {
		t.Errorf("%d backends and %d devices are left", len(d.implicit), len(d.devices))
	}
}

// What cannot be recorded is not done.
func TestCreateThatCannotBeRecordedIsUndone(t *testing.T) {
	d, c := start(t, nil)
	full := errors.New("no space left on device")
	d.saving.Lock()
	d.state.step = func(string) error { return full }
	d.saving.Unlock()
	if _, err := c.Create(t.Context(), control.Create{Name: "a", Backend: "mem:1M"}); err == nil || !strings.Contains(err.Error(), full.Error()) {
		t.Errorf("create: %v, want %v", err, full)
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	if _, err := c.Create(t.Context(), control.Create{Name: "f", Backend: "file:" + path, Size: 1 << 20}); err == nil {
		t.Error("a file: created without a record")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file that the creation made is left: %v", err)
	}
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), control.Create{Name: "f", Backend: "file:" + path, Size: 1 << 20}); err == nil {
		t.Error("a file: created without a record")
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a file that was there before is gone: %v", err)
	}
	if l, err := c.Devices(t.Context()); err != nil || len(l) != 0 {
		t.Errorf("devices %v, %v; want none", l, err)
	}
	d.saving.Lock()
	d.state.step = func(string) error { return nil }
	d.saving.Unlock()
	create(t, c, control.Create{Name: "a", Backend: "mem:1M"})
	d.saving.Lock()
	d.state.step = func(string) error { return full }
	d.saving.Unlock()
	if _, err := c.Remove(t.Context(), "a", control.Remove{}); err == nil || !strings.Contains(err.Error(), "is removed, but after a restart") {
		t.Errorf("a removal that cannot be recorded: %v", err)
	}
}

// A chain of tables comes up in order whatever the names, and a device that
// is broken takes only those above with it.
func TestRestoreFollowsDependencies(t *testing.T) {
	dir, err := os.MkdirTemp("", "kw")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	d, c := startIn(t, dir, nil)
	file := filepath.Join(dir, "gone.img")
	create(t, c, control.Create{Name: "z", Backend: "mem:1M"})
	create(t, c, control.Create{Name: "f", Backend: "file:" + file, Size: 1 << 20})
	for _, x := range [][2]string{{"m", "z"}, {"a", "m"}, {"y", "a"}, {"b", "f"}, {"c", "b"}} {
		create(t, c, control.Create{Name: x[0], Table: "0 8 linear " + x[1] + " 0\n"})
	}
	stop(t, d)
	must(t, os.Remove(file))
	_, c = startIn(t, dir, nil)
	l, err := c.Devices(t.Context())
	must(t, err)
	var works, broken []string
	for _, v := range l {
		if v.State == "active" {
			works = append(works, v.Name)
		} else {
			broken = append(broken, v.Name)
			if !strings.Contains(v.Problem, "gone.img") {
				t.Errorf("%s: problem %q does not say what is wrong", v.Name, v.Problem)
			}
		}
	}
	if got := strings.Join(works, "") + " " + strings.Join(broken, ""); got != "amyz bcf" {
		t.Errorf("works and broken: %s; want amyz bcf", got)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the disk that was lost came back empty")
	}
}

// Configurations that stand on themselves do not hang the start.
func TestRestoreRefusesACycle(t *testing.T) {
	_, c := start(t, &Config{Devices: []DeviceConfig{
		{control.Create{Name: "a", Table: "0 8 linear b 0"}}, {control.Create{Name: "b", Table: "0 8 linear a 0"}},
		{control.Create{Name: "ok", Table: "0 8 zero"}},
	}})
	l, err := c.Devices(t.Context())
	must(t, err)
	if len(l) != 3 || l[0].Live || l[1].Live || !l[2].Live {
		t.Errorf("%+v; want a and b without a table, ok live", l)
	}
	if !strings.Contains(l[0].Problem, "would stand on itself: a on b on a") {
		t.Errorf("problem %q", l[0].Problem)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	d, c := start(t, nil)
	must(t, os.Chmod(filepath.Dir(c.Socket), 0o777))
	if i, err := os.Stat(c.Socket); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("control socket has mode %v, %v; want 0600", i.Mode(), err)
	}
	must(t, os.Chmod(c.Socket, 0o666)) // so that only the check of the peer is left
	exe := filepath.Join(filepath.Dir(c.Socket), "exe")
	self, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(exe, self, 0o755))
	connect := func(uid uint32) error {
		cmd := exec.Command(exe)
		cmd.Env = []string{"KEYWAY_TEST_CONNECT=" + c.Socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := connect(65534); err == nil || !strings.Contains(err.Error(), "may not control the daemon; root and") {
		t.Errorf("uid 65534: %v; want a refusal that says why", err)
	}
	if err := connect(0); err != nil {
		t.Errorf("root: %v", err)
	}
	stop(t, d)
	_, c2 := startIn(t, filepath.Dir(c.Socket), &Config{AllowUID: []uint32{65534}})
	must(t, os.Chmod(c2.Socket, 0o666))
	if err := connect(65534); err != nil {
		t.Errorf("a user that the configuration allows: %v", err)
	}
}

// A client that passes something that is no key does not hold the daemon.
func TestKeyDescriptorsThatAreNone(t *testing.T) {
	_, c := start(t, nil)
	add := control.AddKey{Name: "k", Mode: "AES-256-XTS", Source: "test"}
	null, err := os.Open("/dev/null")
	must(t, err)
	defer null.Close()
	if _, err := c.AddKey(t.Context(), add, null); err == nil || !strings.Contains(err.Error(), "neither a file nor a pipe") {
		t.Errorf("a device: %v", err)
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	w.Write(make([]byte, 10))
	w.Close()
	if _, err := c.AddKey(t.Context(), add, r); err == nil || !strings.Contains(err.Error(), "has 10 bytes, and AES-256-XTS takes exactly 64") {
		t.Errorf("ten bytes: %v", err)
	}
	if l, err := c.Keys(t.Context()); err != nil || len(l) != 0 {
		t.Errorf("keys %v, %v; want none", l, err)
	}
}

func FuzzControlRequest(f *testing.F) {
	for _, x := range [][3]string{
		{"POST", "/v1/devices", `{"name":"a","backend":"mem:1M","engine":"cpu?slots=2"}`},
		{"POST", "/v1/devices", `{"name":"b","table":"0 8 zero\n8 8 error"}`},
		{"POST", "/v1/devices/base/reload", `{"table":"0 2048 linear leaf 0","read_only":true}`},
		{"POST", "/v1/devices/base/suspend?timeout=1ms", `{"no_flush":true}`},
		{"POST", "/v1/devices/base/rename", `{"name":"c"}`},
		{"POST", "/v1/devices/base/message", `{"sector":-1,"words":["@cancel_deferred_remove"]}`},
		{"POST", "/v1/devices/base/remove", `{"force":true,"deferred":true}`},
		{"GET", "/v1/devices/base/wait?event=0&timeout=1ms", ``},
		{"GET", "/v1/devices/base/table?inactive=1", ``},
		{"GET", "/v1/devices/leaf/crypto", ``},
		{"GET", "/v1/events?since=0&device=base&timeout=1ms", ``},
		{"GET", "/v1/events?since=x&daemon=y", ``},
		{"POST", "/v1/keys", `{"name":"k","mode":"AES-256-XTS","source":"x"}`},
		{"POST", "/v1/keys/k/evict", `{}`},
		{"POST", "/v1/exports/remove", `{"name":"x"}`},
		{"POST", "/v1/devices", `{"name":1}{`},
	} {
		f.Add(x[0], x[1], []byte(x[2]))
	}
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	d, err := Start(context.Background(), Options{State: filepath.Join(dir, "st"), Socket: filepath.Join(dir, "c.sock")})
	if err != nil {
		f.Fatal(err)
	}
	d.state.step = func(string) error { return errors.New("nothing is written while fuzzing") }
	f.Cleanup(func() { d.Close(context.Background()) })
	h := d.handler()
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		// Backends and exports of the fuzzer's choice would reach the machine.
		for _, far := range []string{"file:", "/", "./", "nbd", "tcp", "unix", `\u`} {
			if bytes.Contains(body, []byte(far)) {
				return
			}
		}
		if !strings.HasPrefix(target, "/v1/") || strings.ContainsAny(target, " \r\n\x00#") || method != "GET" && method != "POST" {
			return
		}
		r, err := http.NewRequest(method, "http://keyway"+target, bytes.NewReader(body))
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(ctx))
		if w.Code >= 500 && w.Code != http.StatusGatewayTimeout {
			t.Fatalf("%s %s: status %d: %s", method, target, w.Code, w.Body)
		}
		if w.Code/100 == 4 && w.Header().Get("Content-Type") == "application/json" {
			if b, _ := io.ReadAll(w.Body); !bytes.Contains(b, []byte(`"error":"`)) {
				t.Fatalf("%s %s: status %d without an error: %s", method, target, w.Code, b)
			}
		}
	})
}
