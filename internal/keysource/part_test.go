package keysource

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A part is as many bytes as asked for, from where it begins, or none: of a file, however
// long, and of what comes out of a FIFO.
func TestParts(t *testing.T) {
	dir := t.TempDir()
	file := write(t, "k", []byte("0123456789"))
	long := filepath.Join(dir, "long")
	f, err := os.Create(long)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("abcd"), 64<<20); err != nil { // as on a stick
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		part Part
		want string
		no   string
	}{
		{file, Part{}, "0123456789", ""}, {file, Part{3, 4}, "3456", ""}, {file, Part{0, 10}, "0123456789", ""}, {file, Part{9, 0}, "9", ""}, {file, Part{9, 1}, "9", ""},
		{file, Part{8, 4}, "", "has 10 bytes, and 4 from byte 8 are asked for"}, {file, Part{10, 0}, "", "begins at byte 10"}, {file, Part{11, 1}, "", "begins at byte 11"},
		{file, Part{0, 11}, "", "has 10 bytes, and 11"}, {file, Part{1, 1<<63 - 1}, "", "has 10 bytes"}, {file, Part{-1, 2}, "", "from byte -1"}, {file, Part{1, -2}, "", "-2 bytes"},
		{long, Part{64 << 20, 0}, "abcd", ""}, {long, Part{64<<20 + 1, 2}, "bc", ""}, {long, Part{1, 0}, "", "more than 16"},
		{dir, Part{1, 1}, "", "is a directory"}, {"/dev/zero", Part{1, 1}, "", "is neither a file, a block device nor a FIFO"},
		{fifo, Part{3, 4}, "3456", ""}, {fifo, Part{8, 4}, "", "has 10 bytes, and 4"},
	} {
		done := make(chan struct{})
		if c.path == fifo {
			go func() { os.WriteFile(fifo, []byte("0123456789"), 0); close(done) }()
		} else {
			close(done)
		}
		b, err := ReadPart(t.Context(), &Env{Patience: time.Minute}, c.path, c.part, 16)
		<-done
		switch {
		case c.no != "" && (err == nil || !strings.Contains(err.Error(), c.no)):
			t.Errorf("%s %v: %v, want %q", c.path, c.part, err, c.no)
		case c.no == "" && err != nil:
			t.Errorf("%s %v: %v", c.path, c.part, err)
		case c.no == "" && !bytes.Equal(b.Bytes(), []byte(c.want)):
			t.Errorf("%s %v: %q, want %q", c.path, c.part, b.Bytes(), c.want)
		}
		b.Wipe()
	}
}
