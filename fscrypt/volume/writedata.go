package volume

import (
	"context"
	"fmt"
	"io"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/arena"
)

// A span is what one chunk of a write replaces: whole units, from a boundary of
// maxRequest in the file, or where the write begins, to the next, or where it ends.
type span struct {
	buf    *arena.Buf
	off, n int64   // of the file: what is new
	first  int64   // of the file: of the first unit
	parts  []Piece // that cover the units
	done   chan error
}

// write replaces n bytes from off on, all in blocks with data, and flushes. Several
// spans are on their way at once.
func (f *File) write(ctx context.Context, s *source, r io.Reader, off, n int64) (written int64, err error) {
	whole := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var under []*span // way, in order
	wait := func() {
		c := under[0]
		under = under[1:]
		e := <-c.done
		c.buf.Put()
		if e == nil && err == nil {
			written += c.n
		} else if err == nil {
			err = e
			cancel(e)
		}
	}
	for at := off; at < off+n && err == nil; {
		if len(under) == inFlight {
			wait()
			continue
		}
		c := &span{off: at, n: min((at|(maxRequest-1))+1, off+n) - at, done: make(chan error, 1)}
		if e := f.load(ctx, s, c, r); e != nil {
			for len(under) > 0 {
				wait()
			}
			if err == nil {
				err = e
			}
			break
		}
		under = append(under, c)
		go func() { c.done <- s.store(ctx, c) }()
		at += c.n
	}
	for len(under) > 0 {
		wait()
	}
	if written > 0 {
		flushed := s.dev.Do(whole, block.Request{Op: block.OpFlush})
		if err == nil {
			err = flushed
		}
	}
	return written, err
}

// load fills a span: with the units at its ends that it does not replace as a whole,
// then with what is new.
func (f *File) load(ctx context.Context, s *source, c *span, r io.Reader) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	end := c.off + c.n
	c.first = c.off &^ (s.unit - 1)
	last := (end + s.unit - 1) &^ (s.unit - 1)
	covered := c.first
	if err := f.pieces(c.first, end-c.first, func(p Piece) bool {
		if p.Off+p.Len <= c.first || p.Off >= last {
			return true // other units of the same block
		}
		if skip := c.first - p.Off; skip > 0 {
			p = p.From(skip)
		}
		p.Len = min(p.Len, last-p.Off)
		if p.Kind == Data && p.Off == covered {
			c.parts = append(c.parts, p)
			covered += p.Len
		}
		return true
	}); err != nil {
		return err
	}
	if covered != last {
		return fmt.Errorf("%w: the file is not mapped as it was", ErrDamaged)
	}
	c.buf = arena.Get(int(last - c.first))
	defer func() {
		if err != nil {
			c.buf.Put()
		}
	}()
	b := c.buf.Bytes()
	head := c.off > c.first
	if head {
		if err := s.read(ctx, &c.parts[0], 0, b[:s.unit]); err != nil {
			return err
		}
	}
	// The last unit of the file has nothing behind its end that would be kept.
	if end < last && end < f.Size && !(head && last-c.first == s.unit) {
		p := &c.parts[len(c.parts)-1]
		if err := s.read(ctx, p, p.Len-s.unit, b[last-c.first-s.unit:]); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(r, b[c.off-c.first:end-c.first]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("what is to be written: %w", err)
	}
	if f.Size < last {
		clear(b[f.Size-c.first:])
	}
	return nil
}

// store writes the units of a span, one part after the other.
func (s *source) store(ctx context.Context, c *span) error {
	b := c.buf.Bytes()
	for _, p := range c.parts {
		// Scratch: whoever encrypts may do it in the buffer, which nobody reads again.
		r := block.Request{Op: block.OpWrite, Flags: block.Scratch, Off: p.Dev, Len: p.Len, Data: block.Bytes(b[p.Off-c.first:][:p.Len])}
		if s.key != nil {
			r.Flags |= block.SkipDefaultKey
			r.Crypt = blkcrypto.Context{Key: s.key, DUN: p.DUN}
		}
		if err := s.dev.Do(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
