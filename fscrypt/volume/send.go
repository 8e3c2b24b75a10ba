package volume

import (
	"context"
	"fmt"
	"io"
	"sync"

	"keyway/internal/arena"
)

// inFlight is how many chunks Send reads ahead of the writer.
const inFlight = 4

// A chunk is what is read for one call of the writer.
type chunk struct {
	buf   *arena.Buf
	off   int64 // of the file
	n     int   // bytes
	parts []Piece
	err   error
	done  chan struct{} // has room for one
}

// Send writes the whole file to w, in large pieces, in order, and returns how many
// bytes it wrote. Several requests are in flight while w takes what came before. ctx
// bounds the requests, not w.
func (f *File) Send(ctx context.Context, w io.Writer) (int64, error) {
	n, err := f.send(ctx, w)
	return n, f.wrap(err)
}

func (f *File) send(ctx context.Context, w io.Writer) (sent int64, err error) {
	s, err := f.source()
	if err != nil {
		return 0, err
	}
	if f.Inline {
		return f.sendInline(ctx, w)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	lanes := min(inFlight, (f.Size+maxRequest-1)/maxRequest)
	free, read, order := make(chan *chunk, lanes), make(chan *chunk, lanes), make(chan *chunk, lanes)
	for range lanes {
		free <- &chunk{done: make(chan struct{}, 1)}
		wg.Go(func() {
			for c := range read {
				c.err = s.fill(ctx, c)
				c.done <- struct{}{}
			}
		})
	}
	var failed error
	wg.Go(func() {
		failed = f.plan(ctx, free, func(c *chunk) {
			order <- c // has room for all
			read <- c
		})
		close(read)
		close(order)
	})
	for c := range order {
		<-c.done
		if err == nil {
			if err = c.err; err == nil {
				var n int
				n, err = w.Write(c.buf.Bytes()[:c.n])
				sent += int64(n)
			}
			if err != nil {
				cancel()
			}
		}
		c.buf.Put()
		c.buf = nil
		free <- c
	}
	if err == nil {
		err = failed // closing order came after it was set
	}
	if err == nil && sent != f.Size {
		err = fmt.Errorf("%w: %d bytes of %d are mapped", ErrDamaged, sent, f.Size)
	}
	return sent, err
}

// sendInline sends what is in the inode, and the zeros behind it, of which a size may
// promise any number.
func (f *File) sendInline(ctx context.Context, w io.Writer) (sent int64, err error) {
	b := arena.Get(maxRequest)
	defer b.Put()
	for sent < f.Size && err == nil {
		if err := context.Cause(ctx); err != nil {
			return sent, err
		}
		part := b.Bytes()[:min(f.Size-sent, maxRequest)]
		if n, err := f.in.ReadAt(part, sent); n < len(part) {
			return sent, err
		}
		var n int
		n, err = w.Write(part)
		sent += int64(n)
	}
	return sent, err
}

// plan divides the pieces of the file among chunks, which it takes from free and
// gives to next.
func (f *File) plan(ctx context.Context, free <-chan *chunk, next func(*chunk)) error {
	var c *chunk
	flush := func() {
		if c != nil {
			next(c)
			c = nil
		}
	}
	err := f.pieces(0, f.Size, func(p Piece) bool {
		for p.Len > 0 {
			if c == nil {
				if ctx.Err() != nil {
					return false
				}
				c = <-free // they all come back, whatever fails
				c.off, c.n, c.parts, c.err = p.Off, 0, c.parts[:0], nil
				c.buf = arena.Get(int(min(f.end()-p.Off, maxRequest)))
			}
			part := p
			part.Len = min(p.Len, c.off+maxRequest-p.Off)
			c.parts = append(c.parts, part)
			c.n = int(min(part.Off+part.Len, f.Size) - c.off)
			p = p.From(part.Len)
			if p.Off-c.off == maxRequest {
				flush()
			}
		}
		return true
	})
	flush()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// end is where the block of the last byte ends.
func (f *File) end() int64 {
	mask := int64(f.v.info.BlockSize) - 1
	return (f.Size + mask) &^ mask
}

// fill reads the parts of a chunk.
func (s *source) fill(ctx context.Context, c *chunk) error {
	b := c.buf.Bytes()
	for i := range c.parts {
		p := &c.parts[i]
		dst := b[p.Off-c.off:][:p.Len]
		if p.Kind != Data {
			clear(dst)
		} else if err := s.read(ctx, p, 0, dst); err != nil {
			return err
		}
	}
	return nil
}
