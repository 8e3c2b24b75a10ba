package nbd

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/block"
	"keyway/internal/arena"
	"keyway/internal/nbdproto"
)

// An inbuf is a receive buffer. The lane and every job whose payload lies in
// it hold a reference.
type inbuf struct {
	buf  *arena.Buf
	refs atomic.Int32
}

// inSize holds a batch of requests at the depth that clients use, 4 KiB each,
// and stays in a core's second-level cache.
const inSize = 256 << 10

func newInbuf() *inbuf {
	b := &inbuf{buf: arena.Get(inSize)}
	b.refs.Store(1)
	return b
}

func (b *inbuf) drop() {
	if b != nil && b.refs.Add(-1) == 0 {
		b.buf.Put()
		b.buf = nil
	}
}

// A job is a request that a worker performs, then its reply.
type job struct {
	jobs  *jobs
	req   nbdproto.Request
	r     block.Request
	flush bool       // a flush follows, for FUA that the device does not have itself
	in    *inbuf     // where the payload of a write lies, or
	buf   *arena.Buf // … of a large one; the data of a read
	cost  int64      // bytes charged

	head  [nbdproto.MaxChunkHead]byte
	reply []byte // header, or the whole reply; in head if it fits
	data  []byte // follows it
	next  *job   // in the queue of jobs, of free ones, of replies
}

// appendReply appends where the reply lies.
func (j *job) appendReply(v []unix.Iovec) []unix.Iovec {
	v = appendIov(v, j.reply)
	return appendIov(v, j.data)
}

func appendIov(v []unix.Iovec, b []byte) []unix.Iovec {
	if len(b) == 0 {
		return v
	}
	i := unix.Iovec{Base: unsafe.SliceData(b)}
	i.SetLen(len(b))
	return append(v, i)
}

// release gives back what j holds, j itself too.
func (j *job) release() {
	js := j.jobs
	j.in.drop()
	j.buf.Put()
	cost := j.cost
	*j = job{jobs: js}
	if cost > 0 {
		js.c.held.Add(-cost)
		js.c.srv.budget.give(cost)
	}
	js.mu.Lock()
	j.next, js.free = js.free, j
	js.mu.Unlock()
	js.c.inFlight.Add(-1)
	select {
	case js.freed <- struct{}{}:
	default:
	}
}

// jobs are the requests of a connection that may block, and the workers that
// perform them: as many as there are requests waiting in the device, started
// on demand and parked between uses.
type jobs struct {
	c     *conn
	lane  *lane
	out   *writer
	freed chan struct{} // a job was released; the lane may be waiting for it
	wg    sync.WaitGroup

	mu         sync.Mutex
	work       sync.Cond // a job is queued, or closed is set
	head, tail *job
	free       *job
	idle       int  // workers that wait at work
	workers    int  // all of them
	waking     bool // one was woken or started and has not taken a job yet
	closed     bool
}

func newJobs(c *conn, l *lane, out *writer) *jobs {
	js := &jobs{c: c, lane: l, out: out, freed: make(chan struct{}, 1)}
	js.work.L = &js.mu
	return js
}

// get returns an empty job and counts it as in flight.
func (js *jobs) get() *job {
	js.c.inFlight.Add(1)
	js.mu.Lock()
	j := js.free
	if j != nil {
		js.free, j.next = j.next, nil
	}
	js.mu.Unlock()
	if j == nil {
		j = &job{jobs: js}
	}
	return j
}

// put queues j.
func (js *jobs) put(j *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.tail == nil {
		js.head = j
	} else {
		js.tail.next = j
	}
	js.tail = j
	js.wake()
}

// wake gets one worker going, if none is about to be. It reports whether one
// will look at the queue without us. mu is held.
func (js *jobs) wake() bool {
	switch {
	case js.waking:
	case js.idle > 0:
		js.waking = true
		js.work.Signal()
	case js.workers < js.c.srv.cfg.MaxInFlight:
		js.waking = true
		js.workers++
		js.wg.Add(1)
		go js.worker()
	default:
		return false
	}
	return true
}

// worker performs jobs until close. It wakes the next worker before it begins
// a job, as long as there are more: so a quick device is served by few, and
// one that blocks gets as many as it needs. The duty to send replies goes
// along with that: who has nobody to pass it on to sends before it may block.
func (js *jobs) worker() {
	defer js.wg.Done()
	js.mu.Lock()
	defer js.mu.Unlock()
	js.waking = false
	for {
		for js.head == nil && !js.closed {
			js.idle++
			js.work.Wait()
			js.idle--
			js.waking = false
		}
		j := js.head
		if j == nil {
			return
		}
		if js.head = j.next; js.head == nil {
			js.tail = nil
		}
		j.next = nil
		passed := js.head != nil && js.wake()
		js.mu.Unlock()
		if !passed {
			js.out.flush()
		}
		js.lane.perform(j)
		js.out.add(j)
		js.mu.Lock()
		if js.head == nil {
			js.mu.Unlock()
			js.out.flush()
			js.mu.Lock()
		}
	}
}

// close ends the workers when the queue is empty, and waits for that.
func (js *jobs) close() {
	js.mu.Lock()
	js.closed = true
	js.work.Broadcast()
	js.mu.Unlock()
	js.wg.Wait()
	js.out.flush()
}

// perform does j's request, waiting as long as that takes, and makes the
// reply.
func (l *lane) perform(j *job) {
	ctx := l.c.ctx
	var err error
	switch j.req.Type {
	case nbdproto.CmdCache:
		err = l.warm(ctx, j)
	case nbdproto.CmdBlockStatus:
		err = l.status(ctx, j)
	case nbdproto.CmdWriteZeroes:
		err = l.zero(ctx, j.r)
	default:
		err = l.dev.Do(ctx, j.r)
	}
	if err == nil && j.flush {
		j.r.Op = block.OpFlush
		err = l.dev.Do(ctx, block.Request{Op: block.OpFlush, Lane: l.c.lane})
	}
	switch {
	case err != nil:
		j.data = nil
		j.reply = l.failure(j.head[:0], &j.req, j.r.Op, err)
	case j.req.Type == nbdproto.CmdRead:
		j.readReply(l)
	case j.reply == nil:
		j.reply = l.style.AppendDone(j.head[:0], &j.req)
	}
}

func (j *job) readReply(l *lane) {
	b := j.buf.Bytes()
	if !l.chunked(&j.req) {
		j.reply, j.data = l.style.AppendData(j.head[:0], &j.req, j.req.Offset, len(b), true), b
		return
	}
	// Data alone and one hole alone need no more room than head has; anything
	// else is sent as data. Large reads that mix both are the copying tools',
	// who ask for the block status first.
	if n, zero := run(b); n == len(b) && zero {
		j.reply = l.style.AppendHole(j.head[:0], &j.req, j.req.Offset, uint32(len(b)), true)
		return
	}
	j.reply, j.data = l.style.AppendData(j.head[:0], &j.req, j.req.Offset, len(b), true), b
}

// zero writes zeroes, by writing them where the device has nothing better.
func (l *lane) zero(ctx context.Context, r block.Request) error {
	err := l.dev.Do(ctx, r)
	if !errors.Is(err, block.ErrNotSupported) || r.Flags&block.FastZero != 0 {
		return err
	}
	// In pieces: the peer may leave in the middle of a terabyte.
	for done := int64(0); done < r.Len; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := min(r.Len-done, zeroPiece)
		if err := block.EmulateZeroes(ctx, l.dev, r.Sub(done, n)); err != nil {
			return err
		}
		done += n
	}
	return nil
}

const zeroPiece = 64 << 20

// warm reads the range of a cache request and throws it away.
func (l *lane) warm(ctx context.Context, j *job) error {
	b := j.buf.Bytes()
	for done := int64(0); done < j.r.Len; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := min(j.r.Len-done, int64(len(b)))
		r := block.Request{Op: block.OpRead, Lane: l.c.lane, Off: j.r.Off + done, Len: n, Data: block.Bytes(b[:n])}
		if err := l.dev.Do(ctx, r); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// warmPiece is the size of warm's buffer.
const warmPiece = 256 << 10
