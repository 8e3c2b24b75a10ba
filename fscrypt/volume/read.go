package volume

import (
	"context"
	"errors"
	"fmt"
	"io"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/arena"
)

// maxRequest is the largest request for contents in bytes: a power of two, and the
// largest class of package arena.
const maxRequest = 1 << 20

// A source is what the requests for a file's contents have in common.
type source struct {
	dev  block.Device
	key  *blkcrypto.Key // nil: not encrypted
	unit int64          // bytes: requests are whole multiples
}

// source starts the key of the file, if it is encrypted. It stays started until the
// file is closed.
func (f *File) source() (source, error) {
	v := f.v
	s := source{dev: v.dev, unit: int64(v.dev.Info().LogicalBlock)}
	if f.Type != Regular {
		return s, fmt.Errorf("%w: a %v has no contents", ErrType, f.Type)
	}
	if !f.Encrypted {
		return s, nil
	}
	c, err := f.opened()
	if errors.Is(err, ErrNoKey) {
		return s, f.noKey("contents of")
	}
	if err != nil {
		return s, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return s, ErrClosed
	}
	if f.key == nil {
		if f.key, err = v.acquire(f, c); err != nil {
			return s, err
		}
	}
	s.key = f.key.key
	s.unit = max(s.unit, int64(s.key.Config().DataUnitSize))
	return s, nil
}

// request reads whole units of a piece of data, skip bytes into it.
func (s *source) request(ctx context.Context, p *Piece, skip int64, dst []byte) error {
	r := block.Request{Op: block.OpRead, Off: p.Dev, Len: p.Len}
	if s.key != nil {
		r.Flags |= block.SkipDefaultKey // a target that encrypts everything else leaves it alone
		r.Crypt = blkcrypto.Context{Key: s.key, DUN: p.DUN}
		if skip != 0 {
			r.Crypt = r.Crypt.Advance(skip)
		}
	}
	r.Off, r.Len, r.Data = p.Dev+skip, int64(len(dst)), block.Bytes(dst)
	return s.dev.Do(ctx, r)
}

// read fills dst with any bytes of a piece of data, skip bytes into it. Whole units go
// straight to dst, in requests of up to maxRequest.
func (s *source) read(ctx context.Context, p *Piece, skip int64, dst []byte) error {
	for len(dst) > 0 {
		in := skip & (s.unit - 1)
		if n := min(int64(len(dst))&^(s.unit-1), maxRequest); in == 0 && n > 0 {
			if err := s.request(ctx, p, skip, dst[:n]); err != nil {
				return err
			}
			skip, dst = skip+n, dst[n:]
			continue
		}
		b := arena.Get(int(s.unit))
		err := s.request(ctx, p, skip-in, b.Bytes())
		n := 0
		if err == nil {
			n = copy(dst, b.Bytes()[in:])
		}
		b.Put()
		if err != nil {
			return err
		}
		skip, dst = skip+int64(n), dst[n:]
	}
	return nil
}

// ReadAt reads contents of a regular file, decrypted; beyond the end of the file it
// returns io.EOF. Holes are zeros and are not read. It may be called by several
// goroutines at once. ErrNoKey: the file is encrypted and its key was not added, so
// that not even holes can be read.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.readAt(ctx, p, off)
	return n, f.wrap(err)
}

func (f *File) readAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	s, err := f.source()
	switch {
	case err != nil:
		return 0, err
	case off < 0:
		return 0, fmt.Errorf("offset %d is negative", off)
	case off >= f.Size:
		return 0, io.EOF
	case f.Inline:
		return f.in.ReadAt(p, off)
	}
	var eof error
	if int64(len(p)) > f.Size-off {
		p, eof = p[:f.Size-off], io.EOF
	}
	var failed error
	err = f.pieces(off, int64(len(p)), func(piece Piece) bool {
		skip := off + int64(n) - piece.Off
		part := p[n:]
		part = part[:min(int64(len(part)), piece.Len-skip)]
		if piece.Kind != Data {
			clear(part)
		} else if failed = s.read(ctx, &piece, skip, part); failed != nil {
			return false
		}
		n += len(part)
		return true
	})
	if err == nil {
		err = failed
	}
	if err == nil && n < len(p) {
		err = fmt.Errorf("%w: %d bytes of %d are mapped", ErrDamaged, n, len(p))
	}
	if err == nil {
		err = eof
	}
	return n, err
}
