package history

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"keyway/blkcrypto"
	"keyway/block"
)

// errFault is what an engine answers on purpose.
var errFault = errors.New("a fault of the history")

// A verdict is how a request may end.
type verdict struct {
	ok     bool    // it may succeed
	errs   []error // with what it may fail
	blocks bool    // something on its way is suspended
	slots  bool    // it needs a keyslot, or the medium after the cipher
	engine bool    // of an engine: software has none for it
}

// A question is a request as it arrives at a device.
type question struct {
	op     block.Op
	off, n int64
	marked bool
	fua    bool
	ctx    *keyUse // nil: without a context
	dun    [4]uint64
	w      window
}

func (v *verdict) must(err error) { v.ok, v.errs = false, append(v.errs, err) }
func (v *verdict) may(err error)  { v.errs = append(v.errs, err) }

// add is the verdict of a request of which o is one part: it fails if any does.
func (v *verdict) add(o verdict) {
	v.ok = v.ok && o.ok
	v.errs = append(v.errs, o.errs...)
	v.blocks = v.blocks || o.blocks
	v.slots = v.slots || o.slots
	v.engine = v.engine || o.engine
}

// or is the verdict of a request that may go either way.
func (v *verdict) or(o verdict) {
	v.ok = v.ok || o.ok
	v.errs = append(v.errs, o.errs...)
	v.blocks = v.blocks || o.blocks
	v.slots = v.slots || o.slots
	v.engine = v.engine || o.engine
}

// check returns an error unless err is one of those that the verdict allows.
func (v *verdict) check(err error) error {
	if err == nil {
		if v.ok {
			return nil
		}
		return fmt.Errorf("succeeded, and must fail with one of %v", v.errs)
	}
	for _, e := range v.errs {
		if errors.Is(err, e) {
			return nil
		}
	}
	if v.ok && len(v.errs) == 0 {
		return fmt.Errorf("failed, and must succeed: %w", err)
	}
	return fmt.Errorf("failed with %w, and may with %v (or succeed: %v)", err, v.errs, v.ok)
}

// judge says how a request that an upper layer sends may end.
func (h *history) judge(d *device, q question) verdict {
	if d.gone {
		return verdict{errs: []error{block.ErrClosed}}
	}
	all := verdict{ok: true}
	d.follow(func() { all = h.judgeBy(d, q) })
	return all
}

func (h *history) judgeBy(d *device, q question) verdict {
	var all verdict
	for i, t := range d.tables(q.w) {
		v := verdict{ok: true}
		switch {
		case t == nil:
			v.must(block.ErrIO)
			if q.ctx != nil { // which is looked at first, or not
				v.may(block.ErrInvalid)
				h.judgeKey(&v, q.ctx, q.w)
			}
		case q.ctx != nil:
			h.judgeContext(&v, d, t, q)
			fallthrough
		default:
			v.add(h.judgeIn(d, t, q))
		}
		if d.paused {
			v.blocks = true
		}
		if i == 0 {
			all = v
		} else {
			all.or(v)
		}
	}
	return all
}

// tables are those by which a request may be mapped; a leaf has one of its own.
func (d *device) tables(w window) []*table {
	if d.leaf != nil {
		return []*table{{block: d.leaf.block}}
	}
	if all := d.during(w); len(all) > 0 {
		return all
	}
	return []*table{nil}
}

// judgeContext says how a request may end because of its context, beside what
// happens to its bytes.
func (h *history) judgeContext(v *verdict, d *device, t *table, q question) {
	k, unit := q.ctx, int64(q.ctx.cfg.DataUnitSize)
	switch {
	case !q.op.HasData():
		v.must(block.ErrInvalid)
		return
	case q.n%unit != 0 || !fit(k.cipher, q.dun, q.n/unit):
		v.must(block.ErrInvalid)
	}
	v.slots = true
	if q.n == 0 { // there is nothing to encrypt: the key may be looked at, or not
		v.may(blkcrypto.ErrKeyEvicted)
		v.may(block.ErrNoCrypto)
		return
	}
	h.judgeKey(v, k, q.w)
	h.judgeFaults(v, k, q.w)
	size := t.size()
	if d.leaf != nil {
		size = d.leaf.size
	}
	if k.cfg.KeyType != blkcrypto.HWWrapped || q.off+q.n > size {
		return
	}
	// What the profile promises must work; beyond that, what is served is.
	switch {
	case h.native(d, q.off, q.n, k.cfg, q.marked, q.w):
	case d.serves(k.cfg) && q.off%unit == 0 && h.exact(q.w) && h.promised(d, q.marked):
	default:
		if h.exact(q.w) {
			v.ok = false
		}
		v.may(block.ErrNoCrypto)
	}
	if !h.exact(q.w) {
		v.may(block.ErrNoCrypto)
	}
}

// promised reports whether the profile of d is that of a request with this mark: a
// default key anywhere beneath needs it.
func (h *history) promised(d *device, marked bool) bool {
	if d.leaf != nil || marked || d.live() == nil {
		return true
	}
	for _, r := range d.live().rows {
		if r.kind == "default-key" {
			return false
		}
	}
	for _, u := range d.live().devices() {
		if !h.promised(u, marked) {
			return false
		}
	}
	return true
}

// judgeKey says how a request may end that needs key k.
func (h *history) judgeKey(v *verdict, k *keyUse, w window) {
	for _, c := range append(slices.Clone(h.calls), h.finishing...) {
		if c.idles == k && k.closed == 0 || c.revokes && k.cfg.KeyType == blkcrypto.HWWrapped {
			v.may(blkcrypto.ErrKeyEvicted)
		}
	}
	killed := k.killed != 0 && k.killed <= w.to
	if killed {
		v.may(blkcrypto.ErrKeyEvicted) // by a reload that is still under way, perhaps
	}
	switch {
	case !killed && w.from < k.counted:
		// It used the key before the eviction began, which waits for it
		// (dm-fscrypt.md, invariant 52).
	case k.closed == 0 || k.closed > w.to:
	case k.sealed != 0 && k.sealed < w.from:
		v.must(blkcrypto.ErrKeyEvicted)
	default:
		v.may(blkcrypto.ErrKeyEvicted)
	}
}

// judgeFaults says how a request may end that needs a keyslot for k. Where an engine
// fails to take a raw key software takes over (dm-fscrypt.md, invariant 48), unless
// that fails too.
func (h *history) judgeFaults(v *verdict, k *keyUse, w window) {
	v.engine = v.engine || k.cfg.KeyType == blkcrypto.HWWrapped
	if h.faulty(w, v.engine) {
		v.may(errFault)
	}
}

// faulty reports whether the fallback, or any engine, failed on purpose during w.
func (h *history) faulty(w window, engines bool) bool {
	if h.fallbackFault >= w.from || h.fallback.failing() {
		return true
	}
	return engines && (h.lastFault >= w.from || slices.ContainsFunc(h.engines(), (*engine).failing))
}

// judgeIn says how a request may end that table t of d maps, without a context.
func (h *history) judgeIn(d *device, t *table, q question) verdict {
	v := verdict{ok: true}
	size := t.size()
	if d.leaf != nil {
		size = d.leaf.size
	}
	if q.op == block.OpFlush {
		for _, u := range t.devices() {
			v.add(h.judge(u, question{op: q.op, w: q.w}))
		}
		return v
	}
	switch {
	case q.off < 0 || q.n < 0 || q.off+q.n > size:
		v.must(block.ErrOutOfRange)
		return v
	case (q.off|q.n)%t.block != 0:
		v.must(block.ErrInvalid)
		return v
	case q.n == 0 || d.leaf != nil:
		return v
	}
	t.each(q.off, q.n, func(r *row, p piece) { v.add(h.judgeRow(r, p, q)) })
	return v
}

// judgeRow says how a part may end that goes to a row.
func (h *history) judgeRow(r *row, p piece, q question) verdict {
	v := verdict{ok: true}
	if p.dev == nil {
		if r.kind == "error" {
			v.must(block.ErrIO)
		}
		return v
	}
	if q.op == block.OpWriteZeroes && q.fua { // a flush of all that is beneath the row follows
		for _, u := range r.devs {
			v.add(h.judge(u, question{op: block.OpFlush, w: q.w}))
		}
	}
	down := question{op: q.op, off: p.off, n: p.n, marked: q.marked, w: q.w}
	if r.encrypts() && !(r.kind == "default-key" && q.marked && q.op != block.OpDiscard) {
		switch {
		case q.op == block.OpDiscard && !r.discards:
			v.must(block.ErrNotSupported)
			return v
		case q.op != block.OpDiscard:
			v.slots = true
			h.judgeKey(&v, r.key, q.w)
			h.judgeFaults(&v, r.key, q.w)
			switch wrapped := r.key.cfg.KeyType == blkcrypto.HWWrapped; {
			case wrapped && !h.exact(q.w):
				v.may(block.ErrNoCrypto)
			case wrapped && !h.promised(p.dev, false) && !h.native(p.dev, p.off, p.n, r.key.cfg, false, q.w):
				v.must(block.ErrNoCrypto) // the row's requests have no mark, which the profile beneath takes for granted
			}
		}
		down.marked = false
	} else if r.kind == "default-key" && q.op == block.OpDiscard && !r.discards {
		v.must(block.ErrNotSupported)
		return v
	}
	if r.kind == "dust" && r.dusty {
		for b := p.off / r.unit; b <= (p.off+p.n-1)/r.unit; b++ {
			switch sure, is := r.bad[b]; {
			case !is || q.op != block.OpRead:
			case sure:
				v.must(block.ErrIO)
			default:
				v.may(block.ErrIO)
			}
		}
	}
	below := h.judge(p.dev, down)
	if r.kind == "unstriped" {
		for i, err := range below.errs {
			if errors.Is(err, block.ErrOutOfRange) {
				below.errs[i] = block.ErrIO
			}
		}
	}
	v.add(below)
	return v
}

// native reports whether engines serve a context for the n bytes at off of d: each
// unit whole, by every device on its way.
func (h *history) native(d *device, off, n int64, c blkcrypto.Config, marked bool, w window) bool {
	if d.leaf != nil {
		return d.serves(c)
	}
	if d.traced {
		return true
	}
	d.traced = true
	defer func() { d.traced = false }()
	unit := int64(c.DataUnitSize)
	for _, t := range d.during(w) {
		if t == nil {
			return false
		}
		for at := off; at < off+n; {
			i := 0
			for i < len(t.rows) && t.rows[i].end <= at {
				i++
			}
			if i == len(t.rows) {
				break // out of range, and refused for that
			}
			r := t.rows[i]
			part := min(off+n, r.end) - at
			if part < off+n-at {
				part -= part % unit // a unit that the row's end cuts is software's
			}
			if part == 0 || !r.passes(marked) || (r.cuts()|(at-r.start))%unit != 0 && r.cuts() != 0 {
				return false
			}
			for _, u := range r.devs {
				if !u.serves(c) {
					return false
				}
			}
			for _, p := range r.pieces(at-r.start, part) {
				if !h.native(p.dev, p.off, p.n, c, marked, w) {
					return false
				}
			}
			at += part
		}
	}
	return true
}

// fit reports whether n units from dun on have numbers of the width declared.
func fit(c *cipher, dun [4]uint64, n int64) bool {
	if n == 0 {
		return true
	}
	last := plus(dun, uint64(n-1)*c.step())
	for i := 3; i >= 0; i-- { // wrapped
		if last[i] != dun[i] {
			if last[i] < dun[i] {
				return false
			}
			break
		}
	}
	return width(last) <= c.cfg.DUNBytes
}

// ended are the errors of a context that ended.
var ended = []error{context.DeadlineExceeded, context.Canceled}
