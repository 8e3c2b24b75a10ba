package nbd

import (
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
