package history

import (
	"math"
	"math/rand/v2"

	"keyway/blkcrypto"
	"keyway/block"
)

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
	need := min(uint64(max(units, 1))*c.step(), top) // more fit nowhere
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
