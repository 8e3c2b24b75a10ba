package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
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

// fill makes up a request.
func (h *history) fill(c *ioCall, r *rand.Rand) {
	q := &c.q
	switch n := r.IntN(100); {
	case n < 40:
		q.op = block.OpRead
	case n < 85:
		q.op = block.OpWrite
	case n < 90:
		q.op = block.OpFlush
	case n < 95:
		q.op = block.OpWriteZeroes
	default:
		q.op = block.OpDiscard
	}
	size, unit := c.d.size(), c.d.block()
	if q.op.HasData() && len(h.keys) > 0 && oneIn(r, 2) {
		q.ctx = pick(r, h.keys)
		for i := 0; i < 8 && q.ctx.closed != 0; i++ {
			q.ctx = pick(r, h.keys) // seldom a dead one
		}
		unit = max(unit, int64(q.ctx.cfg.DataUnitSize))
	}
	if q.op != block.OpFlush {
		n := unit * (1 + r.Int64N(4))
		if oneIn(r, 6) {
			n = size / unit * unit
		}
		if n > size {
			n = size / unit * unit
		}
		step := unit
		if q.ctx != nil && oneIn(r, 3) {
			step = c.d.block() // data units need not be aligned to anything
		}
		q.n = n
		q.off = r.Int64N(max(size-n, 0)/step+1) * step
		if oneIn(r, 40) {
			q.off += []int64{1, 256, 512, size}[r.IntN(4)] // refused, or not
		}
		if oneIn(r, 60) {
			q.n = max(q.n-[]int64{1, 512, 1024}[r.IntN(3)], 0)
		}
	}
	if q.ctx != nil {
		q.dun = someNumber(r, q.ctx.cipher, q.n/int64(q.ctx.cfg.DataUnitSize))
	}
	f := h.flags(c, r)
	q.marked, q.fua = f&block.SkipDefaultKey != 0, f&block.FUA != 0
	c.r = block.Request{Op: q.op, Flags: f, Lane: uint16(c.id), Off: q.off, Len: q.n}
	if !q.op.HasData() {
		if q.op == block.OpWriteZeroes {
			c.data = make([]byte, q.n)
			c.seen = c.data
		}
		return
	}
	c.data = random(r, int(q.n))
	if q.op == block.OpWrite {
		if q.ctx != nil || h.kind != Concurrent && covered(c.d, q.off, q.n, q.marked) {
			for at := 0; at+len(canary) <= len(c.data); at += sector {
				copy(c.data[at:], canary)
			}
		}
		c.seen = c.data
		if q.ctx != nil && q.n%int64(q.ctx.cfg.DataUnitSize) == 0 {
			c.seen = q.ctx.encrypt(q.dun, c.data)
		}
	}
	c.buf = clone(c.data)
	c.r.Data = block.Bytes(c.buf)
	if oneIn(r, 3) {
		c.r.Data = scattered(r, c.buf)
	}
	if q.ctx != nil {
		c.r.Crypt = blkcrypto.Context{Key: q.ctx.real, DUN: blkcrypto.DUN(q.dun)}
	}
}

func (h *history) flags(c *ioCall, r *rand.Rand) (f block.Flags) {
	if oneIn(r, 4) {
		f |= block.SkipDefaultKey
	}
	nowait := oneIn(r, 8)
	if nowait && h.kind != Twins {
		f |= block.NoWait
	}
	switch c.q.op {
	case block.OpWrite:
		if oneIn(r, 3) {
			f |= block.Scratch
		}
		if oneIn(r, 6) {
			f |= block.FUA
		}
	case block.OpWriteZeroes:
		if oneIn(r, 6) {
			f |= block.FUA
		}
		if oneIn(r, 3) {
			f |= block.NoUnmap
		}
	}
	if c.q.op.HasData() && oneIn(r, 5) {
		f |= block.Shared
	}
	return f
}

// someNumber is a data unit number, often near a carry, that fits most times.
func someNumber(r *rand.Rand, c *cipher, units int64) (dun [4]uint64) {
	top := uint64(math.MaxUint64)
	if b := c.cfg.DUNBytes; b < 8 {
		top = 1<<(8*b) - 1
	}
	need := uint64(max(units, 1)) * c.step()
	switch {
	case oneIn(r, 30):
		dun[0] = top - need/2
	case oneIn(r, 4):
		dun[0] = top - need + 1
	case oneIn(r, 3) && top > math.MaxUint32:
		dun[0] = math.MaxUint32 - need/2
	default:
		dun[0] = r.Uint64N(top-need+1) + 0
	}
	if c.cfg.DUNBytes >= 16 && oneIn(r, 2) {
		dun[1] = r.Uint64N(1 << 62)
		if oneIn(r, 2) {
			dun[0] = math.MaxUint64 - need/2 // carries
		}
	}
	return dun
}

// covered reports whether every byte passes a cipher on its way.
func covered(d *device, off, n int64, marked bool) bool {
	if d.leaf != nil || d.live() == nil {
		return false
	}
	all := true
	d.live().each(off, n, func(r *row, p piece) {
		switch {
		case p.dev == nil:
		case r.encrypts() && !(r.kind == "default-key" && marked):
		default:
			all = all && covered(p.dev, p.off, p.n, marked)
		}
	})
	return all
}

// scattered cuts b into pieces of odd sizes.
func scattered(r *rand.Rand, b []byte) block.Segments {
	var v [][]byte
	for len(b) > 0 {
		n := min(1+r.IntN(1500), len(b))
		v = append(v, b[:n:n])
		b = b[n:]
	}
	return block.Vec(v)
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
	if q.op.Changes() {
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
