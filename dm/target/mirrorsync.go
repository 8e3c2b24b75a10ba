package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"keyway/block"
	"keyway/internal/arena"
	"keyway/internal/point"
)

const (
	// copyChunk is what is copied at a time, in bytes: past the size where more
	// would make a medium faster.
	copyChunk = 1 << 20

	// copyRate bounds copying, in bytes a second, so that it leaves the legs time
	// for requests: what Linux allows its RAID arrays.
	copyRate = 200 << 20

	// cleanDelay is how long a region stays marked in the log after its last write,
	// at least; the next write of it meanwhile need not wait for the log.
	cleanDelay = 2 * time.Second

	// closeDelay bounds what Close does so that the next table finds less to copy.
	closeDelay = 10 * time.Second
)

// redo are regions to be copied that are behind the one that is copied now.
type redo struct {
	mu      sync.Mutex
	regions []int64
}

// again has regions copied that were in sync and no longer are, through no fault
// of a leg.
func (m *mirror) again(first, last int64) {
	m.redo.mu.Lock()
	for i := first; i <= last; i++ {
		m.redo.regions = append(m.redo.regions, i)
	}
	m.redo.mu.Unlock()
	m.wake()
}

// wake has the background look what there is to do.
func (m *mirror) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// load makes what the log says known, once. If errors are to be handled there is
// no way on without: the leg from which others would be filled may be the one that
// has missed writes. The next request tries again.
func (m *mirror) load(ctx context.Context) error {
	select {
	case m.loading <- struct{}{}:
		defer func() { <-m.loading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if m.loaded.Load() {
		return nil
	}
	source, err := m.log.load(ctx, m.g.n, m.start, m.handleErrors, m.readOnly)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		m.logFailed(err)
		if errors.Is(err, errNoLog) {
			return fmt.Errorf("log device %q: %w", m.log.name, err)
		}
	}
	m.g.assume(source, m.log.isClean)
	m.loaded.Store(true)
	m.wake()
	return nil
}

// Unpause starts what goes on in the background, copying first. It is called when
// the table has gone live, or goes on.
func (m *mirror) Unpause() {
	m.life.Lock()
	defer m.life.Unlock()
	if m.ended != nil || m.closed || m.readOnly {
		return
	}
	m.g.mu.Lock()
	clear(m.g.missed)
	m.g.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.ended = cancel, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		b := background{m: m}
		b.run(ctx)
	}(m.ended)
}

// Pause stops it, and returns when nothing of it is under way. What waits beneath
// does not any more; a region that is half copied is copied again.
func (m *mirror) Pause() {
	m.life.Lock()
	defer m.life.Unlock()
	m.pause()
}

func (m *mirror) pause() {
	if m.ended == nil {
		return
	}
	m.cancel()
	<-m.ended
	m.ended = nil
}

// Sync makes durable what has been written, for a suspension: a leg that fails does
// not keep a mirror from being suspended and mended. The log says then what is in
// sync, so that the next table has nothing to copy.
func (m *mirror) Sync(ctx context.Context) error {
	if err := m.flush(ctx, block.Request{Op: block.OpFlush}); err != nil {
		return err
	}
	if m.log != nil && m.loaded.Load() && !m.readOnly {
		b := background{m: m}
		b.tidy(ctx, true)
	}
	return nil
}

// Close leaves a log that says what is in sync, unless another table has it by
// now, and the devices to the builder that opened them.
func (m *mirror) Close() error {
	m.life.Lock()
	defer m.life.Unlock()
	m.pause()
	m.closed = true
	if m.log == nil {
		return nil
	}
	defer m.log.release()
	if !m.loaded.Load() || m.readOnly {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeDelay)
	defer cancel()
	b := background{m: m}
	b.tidy(ctx, true) // if it fails there is more to copy next time, no more
	return nil
}

// The background of a mirror copies what is not in sync, and cleans the log.
type background struct {
	m     *mirror
	next  int64     // the first region that has not been looked at
	given legSet    // legs to which nothing is copied any more: they failed it
	idle  uint64    // what has not been touched since then was idle for a while
	due   time.Time // when the log is to be cleaned; zero: not at all
}

// run does what there is to do, and waits for more, until ctx ends.
func (b *background) run(ctx context.Context) {
	for !b.m.loaded.Load() && b.m.load(ctx) != nil {
		select {
		case <-b.m.kick: // by the request that has loaded it
		case <-ctx.Done():
			return
		}
	}
	if b.m.g.complete.Load() && !b.m.told {
		b.tell()
	}
	for ctx.Err() == nil {
		if !b.due.IsZero() && !time.Now().Before(b.due) {
			b.due = time.Time{}
			b.tidy(ctx, false)
		}
		if i, more := b.work(); more {
			b.recover(ctx, i)
			b.schedule()
			continue
		}
		b.schedule()
		var timer <-chan time.Time
		if !b.due.IsZero() {
			timer = time.After(time.Until(b.due))
		}
		select {
		case <-b.m.kick:
		case <-timer:
		case <-ctx.Done():
		}
	}
}

// tell raises the event that all regions are in sync.
func (b *background) tell() {
	b.m.told = true
	b.m.raise("all regions are in sync")
}

// work returns the next region that a leg lacks to which it can be copied.
func (b *background) work() (region int64, more bool) {
	m := b.m
	m.redo.mu.Lock()
	redo := m.redo.regions
	m.redo.regions = nil
	m.redo.mu.Unlock()
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	for len(redo) > 0 {
		i := redo[0]
		redo = redo[1:]
		if m.g.all&^m.g.legsOf(i)&^b.given != 0 {
			m.redo.mu.Lock()
			m.redo.regions = append(redo, m.redo.regions...)
			m.redo.mu.Unlock()
			return i, true
		}
	}
	for ; b.next < m.g.n; b.next++ {
		if m.g.count == m.g.n {
			b.next = m.g.n
			break
		}
		if !m.g.missed[b.next] && m.g.all&^m.g.legsOf(b.next)&^b.given != 0 {
			b.next++
			return b.next - 1, true
		}
	}
	return 0, false
}

// recover copies one region to the legs that lack it, as it lies on one that has
// it: ciphertext stays what it is, and no key is needed.
func (b *background) recover(ctx context.Context, i int64) {
	m := b.m
	pace(ctx, m.until) // not with the region to itself
	point.At("mirror: about to copy")
	from, err := m.g.beginCopy(ctx, i)
	if err != nil {
		return
	}
	to := m.g.all &^ from &^ b.given
	point.At("mirror: copying")
	off, end := i*m.g.size, min((i+1)*m.g.size, m.length)
	for off < end && to != 0 && ctx.Err() == nil {
		pace(ctx, m.until)
		n := min(end-off, copyChunk)
		m.until = time.Now().Add(time.Duration(n) * time.Second / copyRate)
		from, to = b.copy(ctx, off, n, from, to)
		off += n
	}
	if ctx.Err() != nil {
		to = 0
	}
	if m.g.endCopy(i, to) {
		b.tell()
	}
}

// copy copies n bytes at off and returns the legs from which it can still be read
// and those that have got it.
func (b *background) copy(ctx context.Context, off, n int64, from, to legSet) (read, wrote legSet) {
	m := b.m
	buf := arena.Get(int(n))
	defer buf.Put()
	r := block.Request{Op: block.OpRead, Off: off, Len: n, Data: block.Bytes(buf.Bytes())}
	for {
		l := m.prefer(from)
		err := m.legs[l].Do(ctx, r)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return from, 0
		}
		m.fail(l, syncFailed, err)
		if from &^= 1 << l; from == 0 {
			return 0, 0
		}
	}
	point.At("mirror: copy read")
	zero := isZero(buf.Bytes())
	var errs [maxLegs]error
	m.eachLeg(to, func(l int) {
		w := r
		w.Op = block.OpWrite
		if zero && m.legs[l].Device.Info().Zeroes == block.Native {
			w.Op, w.Data = block.OpWriteZeroes, block.Segments{} // holes stay holes
		}
		errs[l] = m.legs[l].Do(ctx, w)
	})
	for l := range to.each() {
		if errs[l] == nil {
			continue
		}
		to &^= 1 << l
		if ctx.Err() == nil {
			m.fail(l, syncFailed, errs[l])
			b.given |= 1 << l
		}
	}
	return from, to
}

var zeroes [4096]byte

func isZero(b []byte) bool {
	for len(b) >= len(zeroes) {
		if !bytes.Equal(b[:len(zeroes)], zeroes[:]) {
			return false
		}
		b = b[len(zeroes):]
	}
	return bytes.Equal(b, zeroes[:len(b)])
}

// pace returns at the given time.
func pace(ctx context.Context, at time.Time) {
	wait := time.Until(at)
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// schedule says when the log is to be cleaned next, if there is anything to clean.
func (b *background) schedule() {
	if b.m.log == nil || !b.due.IsZero() {
		return
	}
	b.m.g.mu.Lock()
	defer b.m.g.mu.Unlock()
	for i, d := range b.m.g.dirty {
		if b.m.g.isSynced(i) || !d.durable {
			b.due, b.idle = time.Now().Add(cleanDelay), b.m.g.seq
			return
		}
	}
}

// tidy makes durable what was written, and has the log say that a region is clean
// that is in sync and was idle for a while; or at the end, all that are.
func (b *background) tidy(ctx context.Context, end bool) {
	g := &b.m.g
	if end {
		b.idle = g.now()
	}
	if g.needsFlush() && b.m.flush(ctx, block.Request{Op: block.OpFlush}) != nil {
		return
	}
	b.m.g.mu.Lock()
	for i, d := range g.dirty {
		switch {
		case !d.durable || d.seq > b.idle:
		case g.isSynced(i):
			b.m.log.clean(i)
			fallthrough
		default: // the log says that it is not clean, and that stays so
			delete(g.dirty, i)
		}
	}
	g.mu.Unlock()
	point.At("mirror: cleaning")
	if err := b.m.log.tidy(ctx); err != nil && ctx.Err() == nil && !end {
		b.m.logFailed(err)
	}
}
