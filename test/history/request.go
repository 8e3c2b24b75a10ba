package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
)

var background = context.Background()

// patience is how long a step waits that nothing will let go: fake time.
const patience = 10 * time.Second

// An ioCall is a request under way.
type ioCall struct {
	id   int
	d    *device
	q    question
	r    block.Request
	data []byte // of a write, as it was; of a read, what came
	seen []byte // of a write: after the cipher of the context
	buf  []byte // what the product got
	err  error
	open error
	from int
}

// request sends one.
func (h *history) request(r *rand.Rand) error {
	d := h.some(r, true)
	c := &ioCall{d: d, id: h.begun + 1, from: h.step}
	h.begun++
	h.fill(c, r)
	q := &c.q
	q.w = h.nowWindow()
	if h.kind == Twins && overlap(h.places(c, q.w)) {
		return nil // nobody promises which of two parts that meet comes last
	}
	ctx, cancel := h.ctx, func() {}
	blocked := h.kind != Concurrent && h.judge(d, *q).blocks
	if blocked && (h.kind == Twins || c.r.Flags&block.NoWait == 0) || h.kind == Concurrent && oneIn(r, 8) {
		ctx, cancel = context.WithTimeout(ctx, patience)
	}
	h.refreshOne(c)
	if q.ctx != nil {
		q.ctx.sent[d] = true
	}
	what := fmt.Sprintf("request %d: %s: %v of %d bytes at %d, flags %#x", c.id, d.name, q.op, q.n, q.off, c.r.Flags)
	if q.ctx != nil {
		what += fmt.Sprintf(", key %v, number %x", q.ctx.real, q.dun)
	}
	h.logf("%s", what)
	h.stats.Requests[q.op.String()]++
	d.handles++
	return h.start(&call{what: what, dev: d, io: c, finish: func() error {
		cancel()
		d.handles--
		return h.finishRequest(c)
	}}, func() {
		dev, err := h.real(d).Open("the history")
		if err != nil {
			c.open = err
			return
		}
		c.err = dev.Do(ctx, c.r)
		if err := dev.Close(); err != nil {
			c.open = err
		}
	})
}

// refresh records where the writes under way may go by the tables of now.
func (h *history) refresh() {
	for _, c := range append(slices.Clone(h.calls), h.finishing...) {
		if c.io != nil {
			h.refreshOne(c.io)
		}
	}
}

func (h *history) refreshOne(c *ioCall) {
	for _, p := range h.places(c, window{c.from, h.step}) {
		p.leaf.medium.begin(c.id, c.from, p.off, p.n, p.data)
	}
}

// places are where the bytes of a request may come to lie.
func (h *history) places(c *ioCall, w window) []placement {
	q := c.q
	if !q.op.Changes() || q.n <= 0 || (q.off|q.n)%sector != 0 || q.off < 0 || c.d.leaf != nil && q.off+q.n > c.d.size() {
		return nil
	}
	return place(nil, c.d, q.off, q.n, c.seen, q.marked, w)
}

// overlap reports whether two placements meet.
func overlap(all []placement) bool {
	for i, p := range all {
		for _, o := range all[:i] {
			if p.leaf == o.leaf && p.off < o.off+o.n && o.off < p.off+p.n {
				return true
			}
		}
	}
	return false
}

// finishRequest compares what came of a request with what may.
func (h *history) finishRequest(c *ioCall) error {
	q := c.q
	q.w = window{c.from, h.step}
	if c.open != nil {
		if c.d.gone || !h.exact(q.w) {
			return nil
		}
		return c.open
	}
	exact := h.exact(q.w)
	v := h.judge(c.d, q)
	h.loosen(&v, c, q.w)
	places := h.places(c, q.w)
	for _, p := range places {
		p.leaf.medium.end(c.id, h.step, p.off, p.n, c.err == nil && exact, q.fua)
	}
	if c.err == nil && !exact && q.op == block.OpWrite {
		h.owed = append(h.owed, c)
	}
	h.healed(c, q, c.err == nil)
	if err := v.check(c.err); err != nil {
		return err
	}
	if err := h.buffer(c); err != nil {
		return err
	}
	result := "ok"
	if c.err != nil {
		h.stats.Failed++
		result = kindOf(c.err)
		h.logf("request %d fails: %v", c.id, c.err)
	}
	switch {
	case c.err == nil && q.op == block.OpRead:
		got := c.buf
		result = fmt.Sprintf("%08x", crc32.ChecksumIEEE(got))
		if q.ctx != nil {
			got = q.ctx.encrypt(q.dun, got)
		}
		ok := fits(c.d, q.off, got, q.marked, false, q.w, func(l *leaf, off int64, data []byte) bool {
			return l.medium.reads(off, data, q.w)
		})
		if !ok {
			return fmt.Errorf("returned %x…, which encrypts to %x…: not what is there", c.buf[:min(16, len(c.buf))], got[:min(16, len(got))])
		}
	case c.err == nil && q.op == block.OpFlush && exact:
		h.durable(c.d, c.from)
	}
	h.results = append(h.results, fmt.Sprintf("request %d: %s", c.id, result))
	return nil
}

// durable records a flush of d.
func (h *history) durable(d *device, from int) {
	for l := range d.leaves(map[*leaf]bool{}) {
		l.medium.flush(from)
	}
}

// loosen adds what a request may fail with because of how it was sent, and of what
// happened meanwhile.
func (h *history) loosen(v *verdict, c *ioCall, w window) {
	if sure := h.exact(w); (v.slots || !sure) && h.faulty(w, v.engine || !sure) {
		v.may(errFault)
	}
	nowait := c.r.Flags&block.NoWait != 0
	if h.kind == Concurrent {
		if nowait {
			v.may(block.ErrWouldBlock)
		}
		for _, e := range ended {
			v.may(e)
		}
		if !h.exact(w) {
			// Tables, and with them sizes and blocks, have changed at moments
			// that nobody knows.
			for _, e := range []error{block.ErrIO, block.ErrOutOfRange, block.ErrInvalid, block.ErrNotSupported, block.ErrNoCrypto, block.ErrClosed, blkcrypto.ErrKeyEvicted} {
				v.may(e)
			}
			v.ok = true
		}
		return
	}
	switch {
	case v.blocks && nowait:
		v.must(block.ErrWouldBlock)
	case v.blocks:
		v.must(context.DeadlineExceeded)
	case nowait && v.slots:
		v.may(block.ErrWouldBlock)
	}
}

// healed keeps account of the bad blocks of dust, which writes heal.
func (h *history) healed(c *ioCall, q question, sure bool) {
	if q.op.Changes() && h.kind != Concurrent { // which have none
		heal(c.d, q, sure)
	}
}

func heal(d *device, q question, sure bool) {
	for _, t := range d.during(q.w) {
		t.each(q.off, q.n, func(r *row, p piece) {
			if p.dev == nil || p.n == 0 {
				return
			}
			if r.kind == "dust" && r.dusty {
				for b := p.off / r.unit; b <= (p.off+p.n-1)/r.unit; b++ {
					if _, is := r.bad[b]; is && sure {
						delete(r.bad, b)
					} else if is {
						r.bad[b] = false
					}
				}
			}
			down := q
			down.off, down.n = p.off, p.n
			heal(p.dev, down, sure)
		})
	}
}

// buffer checks that the memory of a write is as it was (blkcrypto.md, invariant
// 6), unless it was given away.
func (h *history) buffer(c *ioCall) error {
	if c.q.op != block.OpWrite {
		return nil
	}
	given := c.r.Flags&block.Scratch != 0 && !errors.Is(c.err, block.ErrWouldBlock)
	if !given && !bytes.Equal(c.buf, c.data) {
		return errors.New("the writer's memory has changed (blkcrypto.md, invariant 6)")
	}
	return nil
}

// kindOf names an error as twins may compare it.
func kindOf(err error) string {
	for _, e := range []error{
		block.ErrWouldBlock, block.ErrNoCrypto, block.ErrInvalid, block.ErrOutOfRange, block.ErrReadOnly, block.ErrNotSupported,
		block.ErrIO, block.ErrClosed, blkcrypto.ErrKeyEvicted, context.DeadlineExceeded, errFault,
	} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return err.Error()
}
