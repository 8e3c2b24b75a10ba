package keysource

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "k", theKey)
	gives(t, &Env{}, theKey, path)
	gives(t, &Env{}, theKey, "file:"+path)
	long := write(t, "long", make([]byte, MaxKey))
	gives(t, &Env{}, make([]byte, MaxKey), long)
	gives(t, &Env{}, []byte("0\n"), "/proc/sys/kernel/core_uses_pid?encoding=raw") // no size

	refuses(t, &Env{}, "is empty", "", write(t, "empty", nil))
	refuses(t, &Env{}, "more than 4096 bytes", "", write(t, "over", make([]byte, MaxKey+1)))
	refuses(t, &Env{}, "has 20000 bytes, more than 16384", "", write(t, "huge", make([]byte, 20000)))
	refuses(t, &Env{}, "is a directory", "name the file in it", dir)
	refuses(t, &Env{}, "no such file", "", dir+"/nothere")
	refuses(t, &Env{}, "is neither a file nor a FIFO", "", "/dev/zero")
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(sock, &unix.SockaddrUnix{Name: dir + "/sock"})
		defer unix.Close(sock)
	}
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, &Env{}, "is neither a file nor a FIFO", "", dir+"/sock")
}

func TestFilesThatMayNotBeRead(t *testing.T) {
	path := write(t, "k", theKey)
	if err := os.Chmod(path, 0o000); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(path); d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	if os.Geteuid() == 0 {
		// Another user's rights, for this thread alone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		unix.Setfsuid(65534)
		defer unix.Setfsuid(0)
	}
	refuses(t, &Env{}, fmt.Sprintf("permission denied (as user %d; it belongs to user %d, mode 0000)", os.Geteuid(), os.Geteuid()), "mode 0400 or 0600", path)
}

func TestFilesThatOthersReadAreWarnedOf(t *testing.T) {
	for mode, want := range map[os.FileMode]string{0o600: "", 0o640: "", 0o644: "read", 0o604: "read", 0o666: "change"} {
		path := write(t, "k", theKey)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		var said string
		gives(t, &Env{Warn: func(s string) { said += s }}, theKey, path)
		if (said == "") != (want == "") || !strings.Contains(said, want) || want != "" && !strings.Contains(said, path) {
			t.Errorf("mode %o: %q, want %q", mode, said, want)
		}
	}
}

func fifo(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFIFOs(t *testing.T) {
	path := fifo(t)
	soon := &Env{Patience: 20 * time.Millisecond}
	refuses(t, soon, "nobody has written it to its end within 20ms", "first", path)

	// A writer that comes later, and in pieces.
	wrote := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.Write(theKey[:10])
			_, e := f.Write(theKey[10:])
			err = errors.Join(err, e, f.Close())
		}
		wrote <- err
	}()
	gives(t, &Env{}, theKey, path)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}

	// One that never ends; one that writes nothing; one that writes too much.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write(theKey)
	refuses(t, soon, "nobody has written it to its end", "first", path)
	f.Close()
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		wrote <- errors.Join(err, f.Close())
	}()
	refuses(t, &Env{}, "is empty", "", path)
	<-wrote
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		f.Write(make([]byte, maxText+1))
		f.Close()
		wrote <- err
	}()
	refuses(t, &Env{}, "has more than 16384 bytes", "", path)
	<-wrote
}

func TestReadingEndsWithItsContext(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	why := errors.New("it is enough")
	for _, text := range []string{fifo(t), "-"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := parse(t, text).Read(ctx, &Env{Stdin: r})
			done <- err
		}()
		cancel(why)
		if err := <-done; !errors.Is(err, why) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDescriptorsAndStandardInput(t *testing.T) {
	e := &Env{}
	from := func(f *os.File, err error) *os.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	path := write(t, "k", theKey)
	e.Stdin = from(os.Open(path))
	gives(t, e, theKey, "-")
	// From where it stands, as a shell's "< file" shared with others.
	e.Stdin = from(os.Open(path))
	e.Stdin.Seek(60, 0)
	gives(t, e, theKey[60:], "-")
	refuses(t, e, "is empty", "", "-")
	e.Stdin = nil
	refuses(t, e, "is not read by this process", "", "-")

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Write(theKey)
	w.Close()
	e.Stdin = r
	gives(t, e, theKey, "stdin:")
	r.Close()

	f := from(os.Open(path))
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	gives(t, e, theKey, fmt.Sprintf("fd:%d", fd))
	refuses(t, e, "is not open", "<FILE", "fd:987654")
	d := from(os.Open(t.TempDir()))
	fd, _ = unix.Dup(int(d.Fd()))
	refuses(t, e, "is a directory", "", fmt.Sprintf("fd:%d", fd))
}

func TestEncodings(t *testing.T) {
	h, b64 := hex.EncodeToString(theKey), base64.StdEncoding.EncodeToString(theKey)
	for _, c := range []struct{ encoding, text string }{
		{"hex", h}, {"hex", strings.ToUpper(h)}, {"hex", " " + h[:10] + " " + h[10:] + "\r\n"},
		{"base64", b64}, {"base64", strings.TrimRight(b64, "=") + "\n"}, {"base64", b64[:20] + "\n" + b64[20:] + "\n"},
		{"raw", string(theKey)},
	} {
		gives(t, &Env{}, theKey, write(t, "k", []byte(c.text))+"?encoding="+c.encoding)
	}
	gives(t, &Env{}, make([]byte, MaxKey), write(t, "k", bytes.Repeat([]byte("00 "), MaxKey))+"?encoding=hex")
	for _, c := range []struct{ encoding, text, want string }{
		{"hex", h[1:], "127 characters that are not hex"}, {"hex", h + "x", "that are not hex"}, {"hex", "\n", "is empty"},
		{"base64", b64 + "!", "89 characters that are not base64"}, {"base64", "====", "is empty"}, {"hex", string(theKey), "are not hex"},
	} {
		way := "encoding=raw"
		if c.want == "is empty" {
			way = ""
		}
		refuses(t, &Env{}, c.want, way, write(t, "k", []byte(c.text))+"?encoding="+c.encoding)
	}
}

func TestPrompts(t *testing.T) {
	gives(t, answers(hex.EncodeToString(theKey)), theKey, "prompt:")
	gives(t, answers("0123456789abcdef"), []byte("0123456789abcdef"), "prompt:?encoding=raw")
	refuses(t, answers("a55a"+strings.Repeat("0", 123)), "127 characters that are not hex", "encoding", "prompt:")
	refuses(t, &Env{}, "nobody can be asked", "", "prompt:")
}
