package memory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keyway/test/harness"
)

// A waiting daemon answers what clients ask first, and keeps those waiting that bring
// a key.
type waiting struct {
	socket string
	came   chan struct{} // a client with a key is there
	goOn   chan struct{} // closed when it may go
}

func wait(t *testing.T) *waiting {
	t.Helper()
	w := &waiting{filepath.Join(harness.Dir(t), "s"), make(chan struct{}), make(chan struct{})}
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		answer := "{}"
		switch {
		case r.Method == http.MethodGet:
			answer = "[]"
		case strings.HasSuffix(r.URL.Path, "/keys"):
			w.came <- struct{}{}
			<-w.goOn
		}
		io.WriteString(out, answer)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return w
}

// clients are the commands through which keys and passphrases pass. Each gets its
// secret on standard input.
func TestClientsKeepKeysInKeyMemory(t *testing.T) {
	needRoot(t)
	luks2 := format(t, "luks2", small("argon2id")...)
	luks1 := format(t, "luks1", small("pbkdf2")...)
	key := random(64)
	addKey := func(t *testing.T, s *Set) { s.AddXTS("key", key) }
	for _, c := range []struct {
		name  string
		args  []string
		input func(t *testing.T) *os.File
		add   func(t *testing.T, s *Set)
	}{
		{"key add -", []string{"key", "add", "k", "--mode", "AES-256-XTS", "-"}, func(t *testing.T) *os.File { return pipe(t, key) }, addKey},
		{"key add --file", []string{"key", "add", "k", "--mode", "AES-256-XTS", "--file", writeFile(t, "key", key)}, nil, addKey},
		{"create --table", []string{"create", "d", "--table", "-"}, func(t *testing.T) *os.File {
			return pipe(t, fmt.Appendf(nil, "0 2048 crypt aes-xts-plain64 %x 0 leaf 0\n", key))
		}, addKey},
		{"luks open, LUKS2", []string{"luks", "open", luks2.path, "d"}, func(t *testing.T) *os.File { return pipe(t, append(luks2.passphrase, '\n')) },
			func(t *testing.T, s *Set) { luks2.addTo(t, s, "LUKS2") }},
		{"luks open, LUKS1", []string{"luks", "open", luks1.path, "d", "--key-file", "-"}, func(t *testing.T) *os.File { return pipe(t, luks1.passphrase) },
			func(t *testing.T, s *Set) { luks1.addTo(t, s, "LUKS1") }},
		{"luks open, prompt", []string{"luks", "open", luks2.path, "d"}, nil, func(t *testing.T, s *Set) { luks2.addTo(t, s, "LUKS2") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Set
			c.add(t, &s)
			w := wait(t)
			cmd := exec.Command(harness.Binary(t), c.args...)
			cmd.Env = append(os.Environ(), "KEYWAY_SOCKET="+w.socket)
			var said bytes.Buffer
			cmd.Stderr = &said
			if c.input != nil {
				cmd.Stdin = c.input(t)
			}
			var typed func()
			if strings.Contains(c.name, "prompt") {
				typed = terminal(t, cmd, luks2.passphrase)
			}
			harness.Spawn(t, cmd)
			if typed != nil {
				typed()
			}
			exited := make(chan error, 1)
			go func() { exited <- cmd.Wait() }()
			select {
			case <-w.came:
			case err := <-exited:
				t.Fatalf("ended before it gave a key: %v\n%s", err, said.String())
			}
			interrupt(t, cmd.Process.Pid)
			var rep *Report
			var err error
			if e := Stopped(cmd.Process.Pid, func() { rep, err = Process(cmd.Process.Pid, &s) }); e != nil || err != nil {
				t.Fatal(e, err)
			}
			t.Logf("%d MB, %d needles, %d regions that nobody else may read", rep.Bytes>>20, s.Len(), len(rep.Unreadable))
			if out := rep.Outside(); len(out) > 0 {
				t.Errorf("keys are outside of key memory:\n%s", Describe(out))
			}
			close(w.goOn)
			if err := <-exited; err != nil {
				t.Errorf("the command fails: %v\n%s", err, said.String())
			}
		})
	}
}

// terminal gives cmd a terminal for its input, and returns what types the passphrase
// when it is asked for.
func terminal(t *testing.T, cmd *exec.Cmd, passphrase []byte) func() {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if e := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil || e != nil {
		t.Fatal(errors.Join(err, e))
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stderr = slave, in
	return func() {
		in.Close()
		var said []byte
		for b := make([]byte, 256); !bytes.HasSuffix(said, []byte(": ")); {
			n, err := out.Read(b)
			if err != nil {
				t.Fatalf("no prompt, but %q: %v", said, err)
			}
			said = append(said, b[:n]...)
		}
		go io.Copy(io.Discard, out)
		if _, err := master.Write(append(bytes.Clone(passphrase), '\n')); err != nil {
			t.Fatal(err)
		}
	}
}
