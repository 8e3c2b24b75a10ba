package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"keyway/block"
	"keyway/internal/arena"
	"keyway/internal/nbdproto"
)

const (
	// outSize is the memory for the data of a batch of reads. Larger reads go
	// to a worker with a buffer of their own.
	outSize = 1 << 20

	// maxBatch replies leave together: with maxData bytes they keep the peer
	// busy while the next batch is made.
	maxBatch = 64
	maxData  = 256 << 10

	// headRoom is what the headers of one inline reply need at most: a large
	// read alternates at least every minHole bytes.
	headRoom = (outSize/minHole + 1) * 2 * nbdproto.MaxChunkHead

	// minHole is the shortest run of zeroes within a read that is worth a
	// chunk of its own.
	minHole = 32 << 10
)

// A lane serves the requests of one connection.
type lane struct {
	c     *conn
	w     wire
	exp   *entry
	dev   block.Device // takes any alignment
	raw   block.Device
	style nbdproto.Style
	flags uint16 // transmission flags
	size  uint64
	hdr   int // size of a request header

	minBlock   uint32
	allocation bool
	nativeFUA  bool

	in        *inbuf
	pos, have int  // unread input is in[pos:have]
	sip       bool // read little: a large payload is likely to follow

	outBuf  *arena.Buf
	outUsed int
	heads   []byte // headers of the batch
	iov     []unix.Iovec
	replies int
	writer  writer

	jobs          *jobs
	reads, others attempts
	count         Counters // not yet added to the connection's
	timer         *time.Timer
	over          bool // a DISC, or the drain is complete
}

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

func newLane(c *conn, w wire, r nbdproto.Result) *lane {
	e := r.Export.Ref.(*entry)
	i := e.shim.raw.Info()
	l := &lane{
		c: c, w: w, exp: e, dev: e.shim.dev, raw: e.shim.raw,
		style: r.Style, flags: r.Export.Flags, size: r.Export.Size, hdr: nbdproto.RequestSize,
		allocation: r.Allocation, nativeFUA: i.FUA == block.Native, minBlock: 1,
	}
	if r.Style == nbdproto.Extended {
		l.hdr = nbdproto.ExtRequestSize
	}
	if r.BlockSizes {
		l.minBlock = r.Export.MinBlock
	}
	if i.WritesBlock {
		l.others.skip = skipAttempts
		l.others.misses = enoughMisses - 1
	}
	l.writer.w = w
	l.jobs = newJobs(c, l, &l.writer)
	l.in, l.outBuf = newInbuf(), arena.Get(outSize)
	l.heads = make([]byte, 0, maxBatch*nbdproto.MaxChunkHead+headRoom)
	l.iov = make([]unix.Iovec, 0, 4*maxBatch)
	return l
}

// serve carries the connection to its end. first is input that came with the
// handshake.
func (l *lane) serve(first []byte) error {
	l.have = copy(l.in.buf.Bytes(), first)
	err := l.loop()
	if err == nil && !l.over && !l.c.draining.Load() {
		err = errors.New("the peer left without saying so")
	}
	if err != nil {
		// Nobody waits for what is in the device: let it leave the gates.
		l.c.cancel(err)
	}
	l.jobs.close()
	if err == nil {
		err = l.writer.failed()
	}
	l.publish()
	l.in.drop()
	l.outBuf.Put()
	return err
}

func (l *lane) loop() error {
	for !l.over {
		if err := l.batch(); err != nil {
			l.flush()
			return err
		}
		if err := l.flush(); err != nil || l.over {
			return err
		}
		b := l.in.buf.Bytes()[l.have:]
		if l.sip && l.have == l.pos {
			b = b[:min(len(b), sipSize)]
		}
		n, err := l.w.Read(b, l.have == l.pos)
		if err == io.EOF {
			if l.have != l.pos && !l.c.draining.Load() {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err != nil {
			return err
		}
		l.have += n
		l.sip = l.sip && n < sipSize
	}
	return nil
}

// sipSize is what is read after a large write: what is received with its
// header has to be copied, the rest of the payload goes straight to its
// buffer. A sip that is full and has no large write in it ends this.
const sipSize = 4096

// batch serves what has arrived, and makes room for more.
func (l *lane) batch() error {
	need := l.hdr
	for {
		if l.have-l.pos < need {
			return l.room(need)
		}
		n, err := l.next()
		if err != nil || l.over {
			return err
		}
		need = max(n, l.hdr)
	}
}

// room makes space for a message of need bytes, of which some have arrived.
func (l *lane) room(need int) error {
	b := l.in.buf.Bytes()
	shared := l.in.refs.Load() > 1
	switch {
	case l.pos == l.have && !shared:
		l.pos, l.have = 0, 0
	case l.pos+need <= len(b) && len(b)-l.have >= inSize/8:
		// There is room behind.
	case !shared:
		l.have = copy(b, b[l.pos:l.have])
		l.pos = 0
	default: // payloads of jobs lie in it
		fresh := newInbuf()
		l.have = copy(fresh.buf.Bytes(), b[l.pos:l.have])
		l.pos = 0
		l.in.drop()
		l.in = fresh
	}
	return nil
}

var errMagic = errors.New("a request does not begin with its magic number")

// next serves the request at pos, whose header is there. If its payload is
// not, and is small, it returns how many bytes the whole takes, and does
// nothing.
func (l *lane) next() (need int, err error) {
	b := l.in.buf.Bytes()[l.pos:l.have]
	var req nbdproto.Request
	var ok bool
	if l.style == nbdproto.Extended {
		req, ok = nbdproto.ParseExtRequest(b)
	} else {
		req, ok = nbdproto.ParseRequest(b)
	}
	if !ok {
		return 0, errMagic
	}
	if req.Type == nbdproto.CmdDisc {
		l.over = true
		return 0, nil
	}
	payload := 0
	if req.HasPayload(l.style == nbdproto.Extended) {
		if req.Length > MaxRequest {
			return 0, l.tooBig(&req)
		}
		payload = int(req.Length)
	}
	whole := l.hdr + payload
	if len(b) < whole && whole <= maxSmall {
		return whole, nil
	}
	e, msg := l.check(&req)
	if e == nbdproto.OK && l.c.draining.Load() {
		e, msg = nbdproto.ESHUTDOWN, errDraining.Error()
	}
	if e != nbdproto.OK {
		l.pos += l.hdr
		if err := l.discard(payload); err != nil {
			return 0, err
		}
		return 0, l.refuse(&req, e, msg)
	}
	if len(b) < whole {
		return 0, l.large(req, payload)
	}
	l.pos += whole
	return 0, l.exec(req, b[l.hdr:whole], nil)
}

// maxSmall is the largest message that is collected in the receive buffer;
// the payload of a larger one is read straight to where it stays.
const maxSmall = inSize / 4

// tooBig answers a payload that is too large. It is thrown away if that is
// within reason and compact headers are in use; else the protocol has the
// connection end.
func (l *lane) tooBig(req *nbdproto.Request) error {
	const msg = "the payload is larger than the maximum block size"
	l.pos += l.hdr
	if l.style == nbdproto.Extended || req.Length > 2*MaxRequest {
		l.refuse(req, nbdproto.EINVAL, msg)
		return fmt.Errorf("a payload of %d bytes", req.Length)
	}
	if err := l.discard(int(req.Length)); err != nil {
		return err
	}
	return l.refuse(req, nbdproto.EINVAL, msg)
}

// discard throws n bytes of input away.
func (l *lane) discard(n int) error {
	k := min(n, l.have-l.pos)
	l.pos += k
	if n -= k; n == 0 {
		return nil
	}
	if err := l.flush(); err != nil {
		return err
	}
	b := arena.Get(64 << 10)
	defer b.Put()
	for n > 0 {
		k := min(n, b.Len())
		if err := l.w.ReadFull(b.Bytes()[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// large serves a write whose payload does not fit the receive buffer.
func (l *lane) large(req nbdproto.Request, payload int) error {
	if err := l.flush(); err != nil { // the peer may take a while
		return err
	}
	if err := l.charge(int64(payload)); err != nil {
		return err
	}
	l.sip = true
	buf := arena.Get(payload)
	l.pos += l.hdr
	k := copy(buf.Bytes(), l.in.buf.Bytes()[l.pos:l.have])
	l.pos += k
	if err := l.w.ReadFull(buf.Bytes()[k:]); err != nil {
		buf.Put()
		l.uncharge(int64(payload))
		return err
	}
	return l.exec(req, buf.Bytes(), buf)
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

// slot waits until one more request may wait in the device, holding cost
// bytes.
func (l *lane) slot(cost int64) error {
	if l.c.inFlight.Load() >= int64(l.c.srv.cfg.MaxInFlight) {
		if err := l.wait(func() (<-chan struct{}, bool) {
			return nil, l.c.inFlight.Load() < int64(l.c.srv.cfg.MaxInFlight)
		}); err != nil {
			return err
		}
	}
	return l.charge(cost)
}

// charge waits until n more bytes may be in flight.
func (l *lane) charge(n int64) error {
	if n == 0 {
		return nil
	}
	cfg, b := &l.c.srv.cfg, &l.c.srv.budget
	try := func() (<-chan struct{}, bool) {
		held := l.c.held.Load()
		if held > 0 && held+n > cfg.ConnBytes {
			return nil, false
		}
		return b.take(n, held == 0)
	}
	if _, ok := try(); !ok {
		if err := l.wait(try); err != nil {
			return err
		}
	}
	l.c.held.Add(n)
	return nil
}

func (l *lane) uncharge(n int64) {
	l.c.held.Add(-n)
	l.c.srv.budget.give(n)
}

// wait sends what is ready and returns once ready reports true; ready may
// name a channel to look at besides. Meanwhile nothing is read, so the peer's
// going has to be asked for.
func (l *lane) wait(ready func() (<-chan struct{}, bool)) error {
	if err := l.flush(); err != nil {
		return err
	}
	if l.timer == nil {
		l.timer = time.NewTimer(askPeer)
	}
	for {
		other, ok := ready()
		if ok {
			return nil
		}
		l.timer.Reset(askPeer)
		select {
		case <-l.jobs.freed:
		case <-other:
		case <-l.c.ctx.Done():
			return context.Cause(l.c.ctx)
		case <-l.timer.C:
			if l.w.gone() {
				return errors.New("the peer left while its requests waited")
			}
			if err := l.writer.failed(); err != nil {
				return err
			}
		}
	}
}

const askPeer = 200 * time.Millisecond
