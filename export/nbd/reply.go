package nbd

import (
	"encoding/binary"

	"keyway/block"
	"keyway/internal/nbdproto"
)

// This file: checks at the entry, and the lane's own replies.

// check finds what is wrong with a request before it costs anything.
func (l *lane) check(req *nbdproto.Request) (nbdproto.Errno, string) {
	var allowed uint16
	op := block.OpRead
	switch req.Type {
	case nbdproto.CmdRead:
		if l.flags&nbdproto.SendDF != 0 {
			allowed = nbdproto.CmdFlagDF
		}
	case nbdproto.CmdWrite:
		op = block.OpWrite
		if l.style == nbdproto.Extended {
			allowed = nbdproto.CmdFlagPayloadLen
			if req.Flags&nbdproto.CmdFlagPayloadLen == 0 {
				return nbdproto.EINVAL, "a write without payload"
			}
		}
	case nbdproto.CmdFlush:
		if req.Offset != 0 || req.Length != 0 {
			return nbdproto.EINVAL, "a flush has neither offset nor length"
		}
	case nbdproto.CmdTrim:
		op = block.OpDiscard
		if l.flags&(nbdproto.SendTrim|nbdproto.ReadOnly) == 0 {
			return nbdproto.EINVAL, "trim was not offered"
		}
	case nbdproto.CmdCache:
	case nbdproto.CmdWriteZeroes:
		op = block.OpWriteZeroes
		allowed = nbdproto.CmdFlagNoHole
		if l.flags&nbdproto.SendFastZero != 0 {
			allowed |= nbdproto.CmdFlagFastZero
		}
	case nbdproto.CmdBlockStatus:
		allowed = nbdproto.CmdFlagReqOne
		switch {
		case !l.allocation:
			return nbdproto.EINVAL, "no metadata context was negotiated"
		case req.Length == 0:
			return nbdproto.EINVAL, "the status of nothing"
		}
	default:
		return nbdproto.EINVAL, "unknown command"
	}
	if op.Changes() && l.flags&nbdproto.ReadOnly != 0 {
		return nbdproto.EPERM, "the export is read-only"
	}
	// Clients are known to set it on anything; only changes give it a meaning.
	allowed |= nbdproto.CmdFlagFUA
	if req.Flags&^allowed != 0 {
		return nbdproto.EINVAL, "a flag that this command does not have here"
	}
	if req.Offset > l.size || req.Length > l.size-req.Offset {
		return outOfRange(op), "beyond the end of the export"
	}
	if req.Length > MaxRequest && (req.Type == nbdproto.CmdRead || req.Type == nbdproto.CmdCache) {
		return nbdproto.EINVAL, "longer than the maximum block size"
	}
	return nbdproto.OK, ""
}

// head takes over l.heads with one more header in it, which joins the batch.
func (l *lane) head(heads []byte) {
	l.iov = appendIov(l.iov, heads[len(l.heads):])
	l.heads = heads
}

// data puts a run of read data and its header into the batch.
func (l *lane) data(req *nbdproto.Request, off uint64, b []byte, last bool) {
	l.head(l.style.AppendData(l.heads, req, off, len(b), last))
	l.iov = appendIov(l.iov, b)
}

// replied ends a reply: the batch leaves when it is large enough.
func (l *lane) replied() error {
	l.replies++
	if l.replies >= maxBatch || l.outUsed >= maxData || cap(l.heads)-len(l.heads) < headRoom {
		return l.flush()
	}
	return nil
}

// done answers a request that succeeded without data.
func (l *lane) done(req *nbdproto.Request) error {
	if req.Type == nbdproto.CmdRead { // of nothing; the style wants a chunk
		l.head(l.style.AppendNone(l.heads, req))
	} else {
		l.head(l.style.AppendDone(l.heads, req))
	}
	return l.replied()
}

// refuse answers a request that was not performed.
func (l *lane) refuse(req *nbdproto.Request, e nbdproto.Errno, msg string) error {
	l.c.counters.errors.Add(1)
	l.head(l.style.AppendError(l.heads, req, e, msg))
	return l.replied()
}

// fail answers a request that the device failed.
func (l *lane) fail(req *nbdproto.Request, op block.Op, err error) error {
	// Its own memory: the message may be longer than a header.
	l.iov = appendIov(l.iov, l.failure(nil, req, op, err))
	return l.replied()
}

// failure makes the reply to a request that the device failed.
func (l *lane) failure(b []byte, req *nbdproto.Request, op block.Op, err error) []byte {
	l.c.counters.errors.Add(1)
	e := errno(op, err)
	if e == nbdproto.ENOTSUP && req.Flags&nbdproto.CmdFlagFastZero == 0 {
		e = nbdproto.EINVAL // the protocol keeps ENOTSUP for fast zeroes
	}
	l.c.srv.cfg.Log.Debug("nbd: request failed", "peer", l.c.peer, "export", l.exp.Name,
		"op", op.String(), "off", req.Offset, "len", req.Length, "err", err)
	return l.style.AppendError(b, req, e, err.Error())
}

// flush sends the batch.
func (l *lane) flush() error {
	l.publish()
	if len(l.iov) == 0 {
		return l.writer.failed()
	}
	err := l.writer.send(l.iov)
	clear(l.iov) // they refer to buffers
	l.iov, l.heads, l.outUsed, l.replies = l.iov[:0], l.heads[:0], 0, 0
	return err
}

// publish adds what was counted to the connection's counters.
func (l *lane) publish() {
	if l.count == (Counters{}) {
		return
	}
	t, n := &l.c.counters, &l.count
	t.reads.Add(n.Reads)
	t.writes.Add(n.Writes)
	t.flushes.Add(n.Flushes)
	t.trims.Add(n.Trims)
	t.zeroes.Add(n.Zeroes)
	t.others.Add(n.Others)
	t.bytesRead.Add(n.BytesRead)
	t.bytesWritten.Add(n.BytesWritten)
	t.deferred.Add(n.Deferred)
	l.count = Counters{}
}

// run returns the length of the first run of b, and whether it is zeroes. A
// run of zeroes is all of b or at least minHole long.
func run(b []byte) (n int, zero bool) {
	if n = zeroes(b); n == len(b) || n >= minHole {
		return n, true
	}
	for n < len(b) {
		// Only blocks whose first word is zero can begin a hole: data costs one
		// look per 4 KiB.
		n = min((n+4096)&^4095, len(b))
		if z := zeroes(b[n:]); n < len(b) && z >= minHole {
			return n, false
		}
	}
	return n, false
}

// zeroes returns how many zeroes b begins with, in words of 8 bytes unless
// all of b is zero.
func zeroes(b []byte) int {
	i := 0
	for ; len(b)-i >= 32; i += 32 {
		if binary.NativeEndian.Uint64(b[i:])|binary.NativeEndian.Uint64(b[i+8:])|
			binary.NativeEndian.Uint64(b[i+16:])|binary.NativeEndian.Uint64(b[i+24:]) != 0 {
			break
		}
	}
	for ; len(b)-i >= 8; i += 8 {
		if binary.NativeEndian.Uint64(b[i:]) != 0 {
			return i
		}
	}
	for j := i; j < len(b); j++ {
		if b[j] != 0 {
			return i
		}
	}
	return len(b)
}
