package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"keyway/internal/ext4"
	"keyway/internal/f2fs"
	"keyway/internal/fstype"
)

// ErrNoWrite: contents must not be written in place, or cannot be. The error says why,
// and nothing was written.
var ErrNoWrite = fstype.ErrNoWrite

// A WriteError tells how far a write came that failed in the middle.
type WriteError struct {
	Off, Len int64 // bytes: what was asked for
	// Written is how many bytes from Off on are new. Of those behind them each data
	// unit is old or new.
	Written int64
	Err     error
}

func (e *WriteError) Error() string {
	return fmt.Sprintf("%d of %d bytes from %d on were written, and perhaps some behind them: %v", e.Written, e.Len, e.Off, e.Err)
}

func (e *WriteError) Unwrap() error { return e.Err }

// CheckWrite reports why WriteAt and WriteFrom would refuse to replace n bytes of the
// contents from off on; nil: they would not, as things are.
//
// Written in place are blocks that exist, and nothing else: holes, blocks without data
// yet and what is beyond the end of the file are refused, and so are files that are
// inline, compressed, immutable, append-only, protected by fs-verity or journalled with
// their data, file systems that are mounted or were not unmounted, as far as can be
// told, or that have errors, and devices that are read-only. A file system that is
// mounted read-only cannot be told from one that is not, and does not see what is
// written if it has the file in its cache.
func (f *File) CheckWrite(off, n int64) error {
	_, err := f.writable(off, n)
	return f.wrap(err)
}

// WriteAt replaces contents of a regular file in place: len(p) bytes from off on, by
// requests that carry the file's key and the number of the first data unit, and a flush
// behind them. Data units of which a part is replaced are read, changed and written
// back; what is behind the end of the file in its last one becomes zeros, as the kernel
// writes them. No metadata is changed, not even the times.
//
// The error is what CheckWrite says, which is found before anything is written, or a
// *WriteError. Writes to one volume go one after the other; those of others to the same
// data units can be lost under one.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.WriteFrom(ctx, bytes.NewReader(p), off, int64(len(p)))
	return int(n), err
}

// WriteFrom is WriteAt of n bytes from r, of which no more are read. If r ends early
// the error is a *WriteError of io.ErrUnexpectedEOF; up to a mebibyte that was read is
// then not written.
func (f *File) WriteFrom(ctx context.Context, r io.Reader, off, n int64) (int64, error) {
	f.v.writing.Lock()
	defer f.v.writing.Unlock()
	s, err := f.writable(off, n)
	if err != nil || n == 0 {
		return 0, f.wrap(err)
	}
	written, err := f.write(ctx, &s, r, off, n)
	if err != nil {
		err = f.wrap(&WriteError{Off: off, Len: n, Written: written, Err: err})
	}
	return written, err
}

// writable starts the key of the file once nothing forbids the write.
func (f *File) writable(off, n int64) (s source, err error) {
	block, dev := int64(f.v.info.BlockSize), f.v.dev.Info()
	switch {
	case f.Type != Regular:
		return s, fmt.Errorf("%w: a %v has no contents", ErrType, f.Type)
	case off < 0 || n < 0:
		return s, fstype.Refuse("%d bytes at %d: negative", n, off)
	case n > f.Size || off > f.Size-n:
		return s, fstype.Refuse("%d bytes from %d on, in a file of %d bytes, which does not become longer", n, off, f.Size)
	case dev.ReadOnly:
		return s, fstype.Refuse("the device is read-only")
	case block%int64(dev.LogicalBlock) != 0:
		return s, fstype.Refuse("blocks of %d bytes, on a device with blocks of %d", block, dev.LogicalBlock)
	}
	if err := f.mayWrite(); err != nil {
		return s, err
	}
	if s, err = f.source(); err != nil {
		return s, err
	}
	var refused error
	err = f.pieces(off, n, func(p Piece) bool {
		if p.Kind == Data {
			return true
		}
		what := "a hole"
		if p.Kind == Unwritten {
			what = "allocated and were never written"
		}
		refused = fstype.Refuse("bytes %d to %d are %s, and no metadata is changed", max(p.Off, off), min(p.Off+p.Len, off+n), what)
		return false
	})
	return s, errors.Join(err, refused)
}

// mayWrite asks the file system, which reads again what it goes by.
func (f *File) mayWrite() error {
	err := f.in.(interface{ MayWrite() error }).MayWrite()
	if errors.Is(err, ext4.ErrJournal) || errors.Is(err, f2fs.ErrUnclean) {
		return fmt.Errorf("%w: %w", ErrUnclean, err)
	}
	return err
}
