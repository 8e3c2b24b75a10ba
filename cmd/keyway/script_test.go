package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keyway/test/harness"
	"keyway/test/spawn"
)

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"keyway": main, "keyway-panics": panicOnSignal})
}

type tests struct{ *testing.M }

func (t tests) Run() int {
	defer removeClient()
	return t.M.Run()
}

// TestScripts runs the transcripts under testdata: the command line as a user
// meets it, against a daemon of its own.
//
//	daemon [ARG...]   starts "keyway serve" with state directory and control
//	                  socket in the work directory, and waits until it is ready
//	! daemon ...      starts one that must end by itself; its output is stdout
//	crash             ends it as a power cut would
//	term              ends it by SIGTERM and wants status 0
//	log TEXT          wants that in its log
//	contains FILE TEXT
//	                  wants that in FILE, within a minute
//	key FILE N        writes a key of 64 bytes, different for each N
//	age FILE OUT PASS encrypts FILE as age does, for a passphrase
//	request DEVICE read|write SECTOR
//	                  sends 4096 bytes to DEVICE, which is exported at $D/DEVICE.sock
//	! request ...     wants an error of it
//	fixture LUKS      unpacks that disk as LUKS.img, with LUKS.header and LUKS.N, what
//	                  opens slot N
//	fsimage KIND NAME unpacks that file system as NAME.a.img ..., with the master key of each
//	                  DIRECTORY as DIRECTORY.key
//	reads LUKS DEVICE wants of DEVICE, which is exported, what was written to the disk
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// Short: a path of a Unix socket has 107 bytes.
			dir, err := os.MkdirTemp("", "kw")
			if err != nil {
				return err
			}
			d := &scriptDaemon{dir: dir}
			e.Values["daemon"] = d
			e.Defer(func() { d.kill(); os.RemoveAll(dir) })
			e.Setenv("D", dir)
			e.Setenv("PATH", clientPath(t)+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("KEYWAY_SOCKET", filepath.Join(dir, "c.sock"))
			e.Setenv("XDG_RUNTIME_DIR", dir)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon": cmdDaemon, "crash": cmdCrash, "term": cmdTerm, "log": cmdLog, "contains": cmdContains, "key": cmdKey, "age": cmdAge, "request": cmdRequest,
			"fixture": func(ts *testscript.TestScript, _ bool, args []string) { cmdFixture(t, ts, args[0]) },
			"fsimage": func(ts *testscript.TestScript, _ bool, args []string) { cmdFsImage(t, ts, args) },
			"reads":   func(ts *testscript.TestScript, _ bool, args []string) { cmdReads(t, ts, args[0], args[1]) },
		},
	})
}

type scriptDaemon struct {
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has been reaped
	log  syncedBuffer
}

func (d *scriptDaemon) kill() {
	if d.cmd != nil {
		d.cmd.Process.Kill()
		<-d.done
		d.cmd = nil
	}
}

type syncedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func daemonOf(ts *testscript.TestScript) *scriptDaemon { return ts.Value("daemon").(*scriptDaemon) }

func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	d := daemonOf(ts)
	if d.cmd != nil {
		ts.Fatalf("the daemon runs already")
	}
	path, err := exec.LookPath("keyway")
	ts.Check(err)
	notify, err := spawn.NewNotify(filepath.Join(d.dir, "notify"))
	ts.Check(err)
	args = append([]string{"serve", "--state", ts.MkAbs("st")}, args...)
	cmd := exec.Command(path, args...)
	cmd.Dir = ts.MkAbs(".")
	for _, k := range []string{"PATH", "HOME", "KEYWAY_SOCKET", "XDG_RUNTIME_DIR", "TMPDIR", "GOCOVERDIR", "CREDENTIALS_DIRECTORY"} {
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	cmd.Env = append(cmd.Env, notify.Env())
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	ts.Check(spawn.Start(cmd))
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	d.cmd, d.done = cmd, done
	err = notify.Ready(done, time.Minute)
	if neg {
		if err == nil {
			ts.Fatalf("the daemon started")
		}
		d.kill()
		fmt.Fprint(ts.Stdout(), d.log.String())
		ts.Logf("%s", d.log.String())
		ts.Check(os.WriteFile(ts.MkAbs("log"), []byte(d.log.String()), 0o600))
		return
	}
	if err != nil {
		d.kill()
		ts.Fatalf("daemon: %v\n%s", err, d.log.String())
	}
}

func cmdCrash(ts *testscript.TestScript, _ bool, _ []string) { daemonOf(ts).kill() }

func cmdTerm(ts *testscript.TestScript, _ bool, _ []string) {
	d := daemonOf(ts)
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		ts.Fatalf("the daemon is still there 30 s after SIGTERM\n%s", d.log.String())
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		ts.Fatalf("the daemon ended with status %d\n%s", code, d.log.String())
	}
	d.cmd = nil
}

func cmdLog(ts *testscript.TestScript, neg bool, args []string) {
	// What the daemon has written comes through a pipe.
	d := daemonOf(ts)
	found := strings.Contains(d.log.String(), args[0])
	for end := time.Now().Add(time.Minute); !found && !neg && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		found = strings.Contains(d.log.String(), args[0])
	}
	if found == neg {
		ts.Fatalf("log: %q: found %v\n%s", args[0], found, d.log.String())
	}
}

func cmdContains(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(b), args[1]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s: no %q (%v)\n%s", args[0], args[1], err, b)
		}
	}
}

func cmdKey(ts *testscript.TestScript, _ bool, args []string) {
	b := make([]byte, 64)
	for i := range b {
		b[i] = byte(i*7) ^ args[1][0]
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

func cmdRequest(ts *testscript.TestScript, neg bool, args []string) {
	c, err := harness.DialNBD("unix", filepath.Join(daemonOf(ts).dir, args[0]+".sock"), args[0])
	ts.Check(err)
	defer c.Close()
	sector, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	op := map[string]uint16{"read": harness.NBDRead, "write": harness.NBDWrite}[args[1]]
	code, err := c.Do(op, 0, sector*512, 0, make([]byte, 4096))
	ts.Check(err)
	if (code != 0) != neg {
		ts.Fatalf("request: NBD error %d", code)
	}
}
