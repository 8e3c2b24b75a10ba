package keysource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"keyway/internal/secret"
)

// A Part is some of the bytes of a file or device. The zero value is all of them.
type Part struct {
	Offset int64 // of the first byte
	Size   int64 // bytes, 0: to the end
}

// IsAll reports whether p leaves nothing out.
func (p Part) IsAll() bool { return p == Part{} }

// of returns how many bytes the part of n bytes has. One that is not all there is none.
func (p Part) of(n int64, max int) (int, error) {
	size := p.Size
	if size == 0 {
		size = n - p.Offset
	}
	switch {
	case p.Offset < 0 || size < 0 && p.Size != 0:
		return 0, fmt.Errorf("part: %d bytes from byte %d", p.Size, p.Offset)
	case p.Offset >= n:
		return 0, fmt.Errorf("has %d bytes, and what is asked for begins at byte %d", n, p.Offset)
	case size > n-p.Offset:
		return 0, fmt.Errorf("has %d bytes, and %d from byte %d are asked for", n, size, p.Offset)
	case size > int64(max):
		return 0, fmt.Errorf("has %d bytes from byte %d, more than %d", size, p.Offset, max)
	}
	return int(size), nil
}

// Cut returns the part of b, which it owns.
func (p Part) Cut(b *secret.Buffer) (*secret.Buffer, error) {
	if p.IsAll() {
		return b, nil
	}
	defer b.Wipe()
	n, err := p.of(int64(b.Len()), b.Len())
	if err != nil {
		return nil, err
	}
	c, err := secret.New(n)
	if err != nil {
		return nil, err
	}
	secret.Move(c.Bytes(), b.Bytes()[p.Offset:])
	return c, nil
}

// ReadPart is ReadFile for a part of up to max bytes of what is at path, which may be a
// block device too: nothing else of it is read. A FIFO is read to its end.
func ReadPart(ctx context.Context, e *Env, path string, p Part, max int) (*secret.Buffer, error) {
	if p.IsAll() {
		return ReadFile(ctx, e, path, max)
	}
	f, st, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Mode().Type() == fs.ModeNamedPipe {
		b, err := ReadFile(ctx, e, path, max)
		if err != nil {
			return nil, err
		}
		return p.Cut(b)
	}
	if t := st.Mode().Type(); t != 0 && t != fs.ModeDevice {
		return nil, errors.New("is neither a file, a block device nor a FIFO")
	}
	if st.Mode().IsRegular() {
		warnOfMode(e, path, st)
	}
	return p.read(f, max)
}

func (p Part) read(f *os.File, max int) (*secret.Buffer, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	n, err := p.of(end, max)
	if err != nil {
		return nil, err
	}
	b, err := secret.New(n)
	if err != nil {
		return nil, err
	}
	if _, err := f.ReadAt(b.Bytes(), p.Offset); err != nil {
		b.Wipe()
		return nil, err
	}
	return b, nil
}
