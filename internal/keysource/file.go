package keysource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keyway/internal/secret"
)

func init() {
	Register(Scheme{
		Name: "file", Place: "PATH", Path: true, Summary: "the bytes of a file, or what comes out of a FIFO",
		Read: func(ctx context.Context, s *Source, e *Env) (*secret.Buffer, error) {
			return ReadFile(ctx, e, s.Place, maxText)
		},
	})
}

// maxText bounds what is read where a key should be, in bytes, before its encoding
// is undone: a longest key in hex, with blanks.
const maxText = 4 * MaxKey

// maxPipe bounds what comes where the size does not show beforehand, in bytes:
// locked memory is scarce.
const maxPipe = 64 << 10

// patience is how long a FIFO may be without a writer, and a writer without an end:
// who writes is started beside, and not by hand.
const patience = 10 * time.Second

var errEmpty = errors.New("is empty")

func tooLong(max int) error { return fmt.Errorf("has more than %d bytes", max) }

// File is the source of a plain file.
func File(path string) *Source {
	return &Source{scheme: schemes["file"], Place: path, options: map[string][]string{}}
}

// ReadFile reads 1 to max bytes from the file or FIFO at path into locked memory,
// of which it takes as much as the file is long. The caller wipes them. Errors do
// not name the path. It warns of a file that everybody may read.
func ReadFile(ctx context.Context, e *Env, path string, max int) (*secret.Buffer, error) {
	f, st, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Mode().IsRegular() {
		warnOfMode(e, path, st)
		return readRegular(f, st, max)
	}
	if st.Mode().Type() != fs.ModeNamedPipe {
		return nil, errors.New("is neither a file nor a FIFO")
	}
	limit := e.Patience
	if limit == 0 {
		limit = patience
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, withWay(fmt.Errorf("nobody has written it to its end within %v", limit),
		"start what writes to the FIFO first, or give its output by - or --fd"))
	defer cancel()
	return readPipe(ctx, f, min(max, maxPipe))
}

// open opens without waiting for a writer.
func open(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, openError(path, err)
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = withWay(errors.New("is a directory"), "name the file in it")
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// openError says what a user can act on.
func openError(path string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	if errors.Is(err, unix.ENXIO) {
		return errors.New("is neither a file nor a FIFO")
	}
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	detail := fmt.Sprintf("as user %d", os.Geteuid())
	st, e := os.Stat(path)
	if e != nil {
		return withWay(fmt.Errorf("%w (%s)", err, detail), "a directory above it may not be searched")
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		detail += fmt.Sprintf("; it belongs to user %d, mode %04o", sys.Uid, st.Mode().Perm())
	}
	return withWay(fmt.Errorf("%w (%s)", err, detail), "let its owner give it to this user, with mode 0400 or 0600")
}

func warnOfMode(e *Env, path string, st fs.FileInfo) {
	if p := st.Mode().Perm(); p&0o006 != 0 {
		what := "read"
		if p&0o002 != 0 {
			what = "change"
		}
		e.warnf("every user may %s %s (mode %04o): \"chmod 0600\" ends that", what, path, p)
	}
}

// regular opens a file and refuses all that is not a regular one.
func regular(path string) (*os.File, fs.FileInfo, error) {
	f, st, err := open(path)
	if err == nil && !st.Mode().IsRegular() {
		f.Close()
		err = errors.New("is not a regular file")
	}
	return f, st, err
}

func readRegular(f *os.File, st fs.FileInfo, max int) (*secret.Buffer, error) {
	n := st.Size()
	if n > int64(max) {
		return nil, fmt.Errorf("has %d bytes, more than %d", n, max)
	}
	if n == 0 { // or a file of the kernel's, which has no size
		n = min(int64(max), MaxKey)
	}
	return read(f, int(n))
}

// read reads r, which keeps no copy, to its end.
func read(r io.Reader, max int) (*secret.Buffer, error) {
	b, err := secret.New(max + 1)
	if err != nil {
		return nil, err
	}
	n, err := io.ReadFull(r, b.Bytes())
	switch {
	case err == nil:
		err = tooLong(max)
	case errors.Is(err, io.EOF):
		err = errEmpty
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = nil
	}
	if err != nil {
		b.Wipe()
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return nil, err
	}
	return fit(b, n)
}

// fit returns the first n bytes of b, which it owns.
func fit(b *secret.Buffer, n int) (*secret.Buffer, error) {
	if b.Len() == n {
		return b, nil
	}
	defer b.Wipe()
	if n == 0 {
		return nil, errEmpty
	}
	c, err := secret.New(n)
	if err != nil {
		return nil, err
	}
	secret.Move(c.Bytes(), b.Bytes())
	return c, nil
}

// readPipe reads the pipe f, which does not block, to its end, until ctx ends.
func readPipe(ctx context.Context, f *os.File, max int) (*secret.Buffer, error) {
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err := awaitWriter(f)
	var b *secret.Buffer
	if err == nil {
		b, err = read(f, max)
	}
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return b, err
}

// awaitWriter waits until there is something to read, or a writer has come and gone.
// A FIFO that nobody has opened for writing looks like one at its end to read(2), but
// not to poll(2).
func awaitWriter(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

// oneLine makes what a program printed fit into an error: printable, on one line,
// and short.
func oneLine(b []byte) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return ' '
		}
		return r
	}, string(b))
	return strings.Join(strings.Fields(text), " ")
}
