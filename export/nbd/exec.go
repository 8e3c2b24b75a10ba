package nbd

import (
	"errors"

	"keyway/block"
	"keyway/internal/arena"
	"keyway/internal/nbdproto"
)

// This file: what a lane does with a request, here or by a worker.

// attempts decides whether to try a kind of request inline. A device that
// keeps saying that it would block is asked only now and then.
type attempts struct{ misses, skip int }

const (
	enoughMisses = 8
	skipAttempts = 512 // a wasted try costs a fraction of the hop to a worker
)

func (a *attempts) try() bool {
	if a.skip > 0 {
		a.skip--
		return false
	}
	return true
}

func (a *attempts) hit() { a.misses = 0 }

func (a *attempts) miss() {
	if a.misses++; a.misses >= enoughMisses {
		a.misses, a.skip = enoughMisses-1, skipAttempts
	}
}

// exec performs a request that check has passed, here if it does not block.
// data is the payload of a write, in own if that is set (whose bytes are
// charged), else in the receive buffer.
//
// Hot: no allocation for what completes here.
func (l *lane) exec(req nbdproto.Request, data []byte, own *arena.Buf) error {
	r := block.Request{Lane: l.c.lane, Off: int64(req.Offset), Len: int64(req.Length)}
	try := &l.others
	flush := false // after the request, for FUA
	switch req.Type {
	case nbdproto.CmdRead:
		l.count.Reads++
		l.count.BytesRead += req.Length
		return l.read(req, r)
	case nbdproto.CmdWrite:
		l.count.Writes++
		l.count.BytesWritten += req.Length
		r.Op, r.Flags, r.Data = block.OpWrite, block.Scratch, block.Bytes(data)
		if req.Flags&nbdproto.CmdFlagFUA != 0 {
			if l.nativeFUA {
				r.Flags |= block.FUA
			} else {
				flush = true
			}
		}
	case nbdproto.CmdFlush:
		l.count.Flushes++
		r = block.Request{Op: block.OpFlush, Lane: l.c.lane}
	case nbdproto.CmdTrim:
		l.count.Trims++
		r.Op, flush = block.OpDiscard, req.Flags&nbdproto.CmdFlagFUA != 0
	case nbdproto.CmdWriteZeroes:
		l.count.Zeroes++
		r.Op, flush = block.OpWriteZeroes, req.Flags&nbdproto.CmdFlagFUA != 0
		if req.Flags&nbdproto.CmdFlagNoHole != 0 {
			r.Flags |= block.NoUnmap
		}
		if req.Flags&nbdproto.CmdFlagFastZero != 0 {
			r.Flags |= block.FastZero
		}
	default: // cache, block status
		l.count.Others++
		if r.Len == 0 {
			return l.done(&req)
		}
		return l.handOff(req, r, false, nil, nil)
	}
	if r.Len == 0 && r.Op != block.OpFlush {
		return l.done(&req)
	}
	if !try.try() {
		return l.handOff(req, r, flush, data, own)
	}
	w := r
	w.Flags |= block.NoWait
	err := l.dev.Do(l.c.ctx, w)
	if err == nil && flush {
		// The write is done: only the flush may still have to wait.
		r, flush = block.Request{Op: block.OpFlush, Lane: l.c.lane}, false
		w = r
		w.Flags |= block.NoWait
		if err = l.dev.Do(l.c.ctx, w); errors.Is(err, block.ErrWouldBlock) {
			l.free(own)
			data, own = nil, nil
			req.Type = nbdproto.CmdFlush
		}
	}
	switch {
	case err == nil:
		try.hit()
		l.free(own)
		return l.done(&req)
	case errors.Is(err, block.ErrWouldBlock):
		try.miss()
		return l.handOff(req, r, flush, data, own)
	case r.Op == block.OpWriteZeroes && r.Flags&block.FastZero == 0 && errors.Is(err, block.ErrNotSupported):
		return l.handOff(req, r, flush, nil, nil)
	}
	l.free(own)
	return l.fail(&req, r.Op, err)
}

// free releases the buffer of a large write.
func (l *lane) free(own *arena.Buf) {
	if own != nil {
		n := int64(own.Len())
		own.Put()
		l.uncharge(n)
	}
}

// read serves a read into the lane's own memory, or hands it off.
func (l *lane) read(req nbdproto.Request, r block.Request) error {
	if r.Len == 0 {
		return l.done(&req)
	}
	if r.Len > outSize || !l.reads.try() {
		return l.handOff(req, r, false, nil, nil)
	}
	n := int(r.Len)
	if l.outUsed+n > outSize {
		if err := l.flush(); err != nil {
			return err
		}
	}
	b := l.outBuf.Bytes()[l.outUsed : l.outUsed+n : l.outUsed+n]
	w := r
	w.Flags |= block.NoWait
	w.Data = block.Bytes(b)
	switch err := l.dev.Do(l.c.ctx, w); {
	case err == nil:
	case errors.Is(err, block.ErrWouldBlock):
		l.reads.miss()
		return l.handOff(req, r, false, nil, nil)
	default:
		return l.fail(&req, r.Op, err)
	}
	l.reads.hit()
	// Buffers begin at pages, which a device may need to take them as they are.
	l.outUsed += (n + arena.Align - 1) &^ (arena.Align - 1)
	if !l.chunked(&req) {
		l.data(&req, req.Offset, b, true)
		return l.replied()
	}
	for off := 0; off < n; {
		k, zero := run(b[off:])
		last := off+k == n
		if zero {
			l.head(l.style.AppendHole(l.heads, &req, req.Offset+uint64(off), uint32(k), last))
		} else {
			l.data(&req, req.Offset+uint64(off), b[off:off+k], last)
		}
		off += k
	}
	return l.replied()
}

// chunked reports whether the reply to a read may tell holes from data.
func (l *lane) chunked(req *nbdproto.Request) bool {
	return l.style != nbdproto.Simple && req.Flags&nbdproto.CmdFlagDF == 0
}

// handOff gives the request to a worker. The payload of a write stays where it
// is: in own, or in the receive buffer, which the worker then shares.
func (l *lane) handOff(req nbdproto.Request, r block.Request, flush bool, data []byte, own *arena.Buf) error {
	cost := int64(0)
	switch {
	case own != nil: // charged already
	case r.Op == block.OpWrite:
		cost = int64(len(data))
	case req.Type == nbdproto.CmdRead:
		cost = r.Len
	case req.Type == nbdproto.CmdCache:
		cost = min(r.Len, warmPiece)
	}
	if err := l.slot(cost); err != nil {
		l.free(own)
		return err
	}
	l.count.Deferred++
	j := l.jobs.get()
	j.req, j.r, j.flush, j.cost = req, r, flush, cost
	switch {
	case own != nil:
		j.buf, j.cost = own, int64(own.Len())
	case r.Op == block.OpWrite:
		l.in.refs.Add(1)
		j.in = l.in
	case cost > 0:
		j.buf = arena.Get(int(cost))
		if req.Type == nbdproto.CmdRead {
			j.r.Data = block.Bytes(j.buf.Bytes())
		}
	}
	l.jobs.put(j)
	return nil
}
