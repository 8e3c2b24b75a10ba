package target

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/arena"
	"keyway/internal/point"
)

const (
	// maxSpan bounds the regions that one change keeps busy, and remembers, at a
	// time.
	maxSpan = 4096

	// maxCopied bounds, in bytes, the copy of data that may change meanwhile.
	maxCopied = 1 << 20
)

// Do performs r. Changes and flushes with NoWait are not worth a try: what one leg
// has done when another would block cannot be taken back.
//
// Hot: no allocation for a read while all regions are in sync.
func (m *mirror) Do(ctx context.Context, r block.Request) error {
	if r.NoWait() && r.Op != block.OpRead {
		return block.ErrWouldBlock
	}
	if !m.loaded.Load() {
		if r.NoWait() {
			return block.ErrWouldBlock
		}
		if err := m.load(ctx); err != nil {
			return err
		}
	}
	switch r.Op {
	case block.OpRead:
		return m.read(ctx, r)
	case block.OpFlush:
		return m.flush(ctx, r)
	}
	return m.change(ctx, r)
}

// read reads from one leg that has all of it, or region by region.
func (m *mirror) read(ctx context.Context, r block.Request) error {
	first, last := m.g.span(r.Off, r.Len)
	if have := m.g.common(first, last); have != 0 {
		return m.readFrom(ctx, r, have)
	}
	for done := int64(0); done < r.Len; {
		first, _ = m.g.span(r.Off+done, 1)
		have, end := m.g.run(first, last)
		n := min(r.Len, (end+1)*m.g.size-r.Off) - done
		if err := m.readFrom(ctx, r.Sub(done, n), have); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// readFrom tries the legs in turn, each with the same request: key and data unit
// number too.
func (m *mirror) readFrom(ctx context.Context, r block.Request, have legSet) error {
	for {
		l := m.prefer(have)
		point.AtIndex("mirror: reading leg", l)
		err := m.legs[l].Do(ctx, r)
		if err == nil || ofRequest(ctx, err) {
			return err
		}
		m.fail(l, readFailed, err)
		if have &^= 1 << l; have == 0 {
			return err
		}
	}
}

// ofRequest reports whether an error is that of the request, which another leg
// would answer alike, and says nothing about the leg.
func ofRequest(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	for _, e := range []error{block.ErrWouldBlock, block.ErrNoCrypto, block.ErrInvalid, block.ErrNotSupported, blkcrypto.ErrKeyEvicted} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// change performs a change piece by piece.
func (m *mirror) change(ctx context.Context, r block.Request) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // half a request would be the worse answer
	}
	if r.Op == block.OpDiscard || r.Flags&block.FastZero != 0 {
		// What some leg would refuse the others are not asked to begin.
		if i := m.Info(); i.Discard == block.None && r.Op == block.OpDiscard || i.Zeroes != block.Native && r.Op == block.OpWriteZeroes {
			return block.ErrNotSupported
		}
	}
	r.Flags &^= block.Scratch // the data goes to several
	limit := maxSpan * m.g.size
	if r.Op == block.OpWrite && r.Flags&block.Shared != 0 {
		limit = min(limit, maxCopied)
	}
	for done := int64(0); done < r.Len; {
		n := min(r.Len-done, limit)
		if err := m.piece(ctx, r.Sub(done, n)); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// piece performs a change: it is in the log first, then on all legs that have its
// regions.
func (m *mirror) piece(ctx context.Context, r block.Request) error {
	if r.Op == block.OpWrite && r.Flags&block.Shared != 0 {
		// All legs are to get the same bytes, so they are read once.
		buf := arena.Get(int(r.Len))
		defer buf.Put()
		r.Data.CopyTo(buf.Bytes())
		r.Data, r.Flags = block.Bytes(buf.Bytes()), r.Flags&^block.Shared
	}
	w, fresh, err := m.g.enter(ctx, r.Off, r.Len)
	if err != nil {
		return err
	}
	defer m.g.leave(w)
	if m.log != nil {
		if fresh {
			m.wake()
		}
		m.log.mark(w.first, w.last)
		if err := m.logged(ctx); err != nil {
			return err
		}
	}
	point.At("mirror: marked")
	degraded := false
	for done := int64(0); done < r.Len; {
		first, _ := m.g.span(r.Off+done, 1)
		have, end := m.g.run(first, w.last)
		n := min(r.Len, (end+1)*m.g.size-r.Off) - done
		if err := m.write(ctx, r.Sub(done, n), first, end, have); err != nil {
			return err
		}
		degraded = degraded || have != m.g.all
		done += n
	}
	if degraded && m.log != nil {
		return m.logged(ctx) // another write may be about to note that its leg is not the source any more
	}
	return nil
}

// logged returns when the log has on its medium what it must. A log that fails is
// a failure of the request only if errors are handled: else the kernel, and so
// we, go on without.
func (m *mirror) logged(ctx context.Context) error {
	err := m.log.sync(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return err
	}
	m.logFailed(err)
	if m.handleErrors {
		return fmt.Errorf("the log (%s) cannot be written: %w", m.log.name, err)
	}
	return nil
}

func (m *mirror) logFailed(err error) {
	if m.log.told.CompareAndSwap(false, true) {
		m.raise(fmt.Sprintf("log (%s) failed: %v", m.log.name, err))
	}
}

// write sends a change of regions on the same legs to these, and returns when
// all have answered. It fails if no leg took it that may be relied on.
func (m *mirror) write(ctx context.Context, r block.Request, first, last int64, have legSet) error {
	var errs [maxLegs]error
	m.eachLeg(have, func(l int) {
		point.AtIndex("mirror: writing leg", l)
		errs[l] = m.legs[l].Do(ctx, r)
	})
	var broken, refused legSet
	var err error
	for l := range have.each() {
		switch e := errs[l]; {
		case e == nil:
			continue
		case ofRequest(ctx, e) || r.Op == block.OpDiscard:
			refused |= 1 << l
		default:
			broken |= 1 << l
			m.fail(l, writeFailed, e)
		}
		if err == nil {
			err = errs[l]
		}
	}
	if err == nil {
		return nil
	}
	point.At("mirror: a leg has failed")
	took := have &^ broken &^ refused
	if refused != 0 || took == 0 {
		if r.Op == block.OpDiscard && !ofRequest(ctx, err) {
			err = fmt.Errorf("%w: a leg failed it: %w", block.ErrNotSupported, err) // as in the kernel, no reason to give up the leg
		}
		m.undecided(first, last)
		return err
	}
	if !m.without(first, last, broken) {
		m.undecided(first, last)
		return err
	}
	point.At("mirror: without a leg")
	if m.log != nil {
		return m.logged(ctx)
	}
	return nil
}

// eachLeg calls f for each leg of s side by side, and returns when all calls have.
func (m *mirror) eachLeg(s legSet, f func(leg int)) {
	var wg sync.WaitGroup
	first := s.first()
	for l := range (s &^ (1 << first)).each() {
		wg.Go(func() { f(l) })
	}
	f(first)
	wg.Wait()
}

// without takes the regions from first to last from legs that have missed a
// change of them which others took. If the source is among these another one
// takes its place, which must have everything: with a log there is no other way
// to say, after a restart, whose data counts. It reports whether that could be.
func (m *mirror) without(first, last int64, missed legSet) bool {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	keep := m.g.all
	for i := first; i <= last; i++ {
		keep &= m.g.legsOf(i) &^ missed
	}
	if keep == 0 || !keep.has(m.g.source) && !m.moveSource(keep, first, last) && m.log != nil {
		return false
	}
	for i := first; i <= last; i++ {
		have := m.g.legsOf(i)
		if have&missed != 0 {
			m.g.missed[i] = true
		}
		m.g.set(i, have&^missed)
	}
	return true
}

// undecided leaves the regions from first to last, of which the legs may hold
// different bytes after a change that has failed, to one leg, from which the
// others are made anew: the source, or if that has failed before and can be
// replaced, one that has not.
func (m *mirror) undecided(first, last int64) {
	m.g.mu.Lock()
	common, changed := m.g.all, false
	for i := first; i <= last; i++ {
		common &= m.g.legsOf(i)
	}
	l, source := m.prefer(common), m.g.source
	if common.has(source) && l != source {
		sound := m.legs[l].errors.Load() == 0 && m.legs[source].errors.Load() != 0
		if !sound || !m.moveSource(1<<l, first, last) {
			l = source
		}
	}
	for i := first; i <= last; i++ {
		have, keep := m.g.legsOf(i), legSet(1)<<l
		if common == 0 { // only without a log: there is no leg that has them all
			keep = 1 << have.first()
		}
		changed = changed || have != keep
		m.g.set(i, keep)
	}
	m.g.mu.Unlock()
	if changed {
		m.again(first, last)
	}
}

// moveSource makes a leg of s the source, if one has every region that is not in
// sync, except those from first to last, which the caller is about to give to s.
// It reports whether it could; g.mu is held.
func (m *mirror) moveSource(s legSet, first, last int64) bool {
	known := int64(0)
	for i, have := range m.g.have {
		if i < first || i > last {
			s &= have
			known++
		}
	}
	others := m.g.n - m.g.count
	for i := first; i <= last; i++ {
		if !m.g.isSynced(i) {
			others--
		}
	}
	if s == 0 || known != others { // some are on the source alone
		return false
	}
	m.g.source = m.prefer(s)
	if m.log != nil {
		m.log.setSource(m.g.source)
	}
	return true
}

// flush reaches every leg. A leg that fails it may have lost what was written
// since the last one.
func (m *mirror) flush(ctx context.Context, r block.Request) error {
	m.g.mu.Lock()
	seq := m.g.seq
	m.g.mu.Unlock()
	var errs [maxLegs]error
	m.eachLeg(m.g.all, func(l int) { errs[l] = m.legs[l].Device.Do(ctx, r) })
	var lost legSet
	for l, err := range errs[:len(m.legs)] {
		if err == nil {
			continue
		}
		if ofRequest(ctx, err) {
			return err
		}
		lost |= 1 << l
		m.fail(l, flushFailed, err)
	}
	if lost != 0 {
		if lost == m.g.all || !m.lose(lost) {
			return errs[lost.first()]
		}
		if m.log != nil {
			if err := m.logged(ctx); err != nil {
				return err
			}
		}
	}
	m.g.covered(seq, m.log == nil)
	return nil
}

// lose takes from legs what was written since the last flush. It reports whether
// all of that is on others.
func (m *mirror) lose(lost legSet) bool {
	m.g.mu.Lock()
	var ends []int64
	for i, d := range m.g.dirty {
		if !d.durable && m.g.legsOf(i)&lost != 0 {
			ends = append(ends, i)
		}
	}
	m.g.mu.Unlock()
	ok := true
	for _, i := range ends {
		ok = m.without(i, i, lost) && ok
	}
	return ok
}
