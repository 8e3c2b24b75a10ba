package target

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"keyway/block"
	"keyway/internal/arena"
)

// errSnapshotInvalid is what becomes of requests to a snapshot that has lost
// something.
var errSnapshotInvalid = fmt.Errorf("%w: the snapshot is invalid", block.ErrIO)

// snapBatch bounds the exceptions that one request makes at a time.
const snapBatch = 256

// A cow is a snapshot: which chunks of its origin have data of their own on the
// COW device, and where. All rows that name the device share it.
//
// An exception is made in this order: its place is taken; the data is copied
// there, or written by who overwrites all of it; the data is made durable, then
// the metadata that points to it; and only then does it count, and may the chunk
// of the origin be changed. A crash between any two steps leaves a chunk of the
// origin that has not changed, or an exception that is complete.
type cow struct {
	id         any
	origin     *origin
	persistent bool
	chunk      int64 // bytes
	shift      int   // log2 of it

	refs  int           // guarded by shares.mu; views that are there or to come
	ready chan struct{} // closed when what is above and err are there
	err   error
	gone  chan struct{} // closed when nobody has it any more

	committing sync.Mutex // held by who changes the store
	store      *snapStore // nil: transient

	mu        sync.Mutex // guards what follows
	views     []*view
	before    []passage // changes of the origin that began before the snapshot did
	reads     flights   // of the origin, for the snapshot
	made      exceptions
	pending   map[int64]*pending // exceptions that are being made, by chunk of the origin
	head      *pending           // the same in the order of their places
	tail      *pending
	next      int64         // the place of the next exception
	taken     int64         // exceptions made and pending
	committed int64         // exceptions made
	overflow  bool          // a write to the snapshot found no room
	dead      chan struct{} // not nil: invalid; closed once the store says so
	why       string        // it is invalid
}

// A pending is an exception that is being made.
type pending struct {
	exception
	full   bool // its data comes from a request, not from the origin
	copied bool // guarded by cow.mu
	next   *pending
	done   chan struct{} // closed when it is made, or err says why not
	err    error
}

// load reads what is on the COW device.
func (c *cow) load(ctx context.Context, v *view, name string, chunk int64) error {
	c.pending = map[int64]*pending{}
	if c.persistent {
		s, err := openStore(ctx, v.to, name, chunk)
		if err != nil {
			return err
		}
		c.store, chunk, c.next = s, s.chunk, snapFirstData
	}
	if err := checkChunk(chunk); err != nil {
		return err
	}
	if lb := int64(max(v.from.Info().LogicalBlock, v.to.Info().LogicalBlock)); chunk%lb != 0 {
		return fmt.Errorf("chunks of %d sectors are not whole blocks of the origin and the COW device, which have %d bytes in one", chunk>>9, lb)
	}
	c.chunk, c.shift = chunk, bits.TrailingZeros64(uint64(chunk))
	switch {
	case c.store != nil && !c.store.valid:
		c.why, c.dead = "its COW device says so", make(chan struct{})
		close(c.dead)
	case c.store != nil:
		if err := c.store.read(ctx, v.to, c.known()); err != nil {
			return fmt.Errorf("COW device %q: metadata: %w", name, err)
		}
		c.committed, c.taken = c.store.count, c.store.count
		if !c.store.isData(c.next) {
			c.next++
		}
	}
	v.cow, c.views = c, []*view{v}
	return nil
}

// known returns what takes the exceptions of a store, and refuses two of one chunk
// or with one place.
func (c *cow) known() func(exception) error {
	var places map[int64]bool // made once they are not in order, as stores usually are
	return func(e exception) error {
		if _, twice := c.made.get(e.from); twice {
			return fmt.Errorf("chunk %d of the origin is there twice", e.from)
		}
		if e.to < c.next && places == nil {
			places = c.made.places()
		}
		if places[e.to] {
			return fmt.Errorf("chunk %d of the store has the data of two chunks", e.to)
		}
		if places != nil {
			places[e.to] = true
		}
		c.made.put(e)
		c.next = max(c.next, e.to+1)
		return nil
	}
}

// take takes the next place for a chunk of the origin; nil if there is none.
// c.mu is held.
func (c *cow) take(from, chunks int64) *pending {
	if c.store != nil && !c.store.fits(c.taken, c.next, chunks) || c.next >= chunks {
		return nil
	}
	p := &pending{exception: exception{from, c.next}, done: make(chan struct{})}
	if c.next++; c.store != nil && !c.store.isData(c.next) {
		c.next++
	}
	c.taken++
	c.pending[from] = p
	if c.tail == nil {
		c.head = p
	} else {
		c.tail.next = p
	}
	c.tail = p
	return p
}

// except makes exceptions of all chunks that [off, end) touches and that are
// none yet, of snapBatch chunks at most. Chunks that w, a write of the snapshot,
// covers get its data and are returned; all others get that of the origin. Other
// requests' exceptions it waits for.
func (v *view) except(ctx context.Context, off, end int64, w *block.Request) (written []*pending, err error) {
	c := v.cow
	first, last := off>>c.shift, (end-1)>>c.shift
	var mine, others []*pending
	full := false
	chunks := v.to.Info().Size >> c.shift
	if err := c.lockAfter(ctx, first<<c.shift, (last+1)<<c.shift, false); err != nil {
		return nil, err
	}
	for i := first; i <= last && c.dead == nil && !full; i++ {
		if _, ok := c.made.get(i); ok {
			continue
		}
		if p := c.pending[i]; p != nil {
			others = append(others, p)
			continue
		}
		p := c.take(i, chunks)
		if p == nil {
			full = true
			continue
		}
		p.full = w != nil && i<<c.shift >= off && (i+1)<<c.shift <= end
		mine = append(mine, p)
	}
	dead := c.dead
	c.mu.Unlock()

	if len(mine) > 0 {
		// Others wait for what has begun: it is carried to its end.
		whole := context.WithoutCancel(ctx)
		if err := v.fill(whole, mine, w); err != nil {
			v.invalidate(whole, fmt.Sprintf("copying a chunk: %v", err))
		}
		v.commit(whole, mine)
	}
	switch {
	case dead != nil:
		return nil, c.wait(ctx, dead, errSnapshotInvalid)
	case full && w != nil && v.overflows:
		c.mu.Lock()
		again := c.overflow
		c.overflow = true
		c.mu.Unlock()
		if !again {
			v.raise("overflow: the COW device is full")
		}
		return nil, errSnapshotFull
	case full:
		v.invalidate(context.WithoutCancel(ctx), "the COW device is full")
		return nil, errSnapshotInvalid
	}
	for _, p := range append(others, mine...) {
		if err := c.wait(ctx, p.done, nil); err != nil {
			return nil, err
		}
		if p.err != nil {
			return nil, p.err
		}
	}
	for _, p := range mine {
		if p.full {
			written = append(written, p)
		}
	}
	return written, nil
}

var errSnapshotFull = fmt.Errorf("%w: the COW device of the snapshot is full", block.ErrNoSpace)

// wait returns err when it is done.
func (c *cow) wait(ctx context.Context, done <-chan struct{}, err error) error {
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lockAfter takes c.mu once no change of these bytes of the origin is under way
// that began before the snapshot did.
func (c *cow) lockAfter(ctx context.Context, off, end int64, nowait bool) error {
	c.mu.Lock()
	for c.before != nil {
		c.before = still(c.before)
		var on []passage
		for _, p := range c.before {
			if p.off < end && off < p.end {
				on = append(on, p)
			}
		}
		if len(on) == 0 {
			break
		}
		c.mu.Unlock()
		if err := await(ctx, on, nowait); err != nil {
			return err
		}
		c.mu.Lock()
	}
	return nil
}

// fill puts the data of exceptions, which are in order, in their places.
func (v *view) fill(ctx context.Context, all []*pending, w *block.Request) error {
	var limit int64
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].full == all[0].full &&
			all[n].from == all[0].from+int64(n) && all[n].to == all[0].to+int64(n) {
			n++
		}
		from, to, length := all[0].from<<v.shift, all[0].to<<v.shift, int64(n)<<v.shift
		var err error
		if all[0].full {
			r := w.Sub(from-w.Off, length)
			r.Off = to
			err = v.to.Do(ctx, r)
		} else {
			if limit == 0 {
				limit = v.from.Info().Size
			}
			err = v.copy(ctx, from, to, min(length, limit-from))
		}
		if err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// copy copies from the origin to the COW device, whose blocks may be larger.
func (v *view) copy(ctx context.Context, from, to, n int64) error {
	if n <= 0 {
		return block.ErrOutOfRange // the origin has shrunk
	}
	mask := int64(v.to.Info().LogicalBlock - 1)
	buf := arena.Get(int(min((n+mask)&^mask, snapPiece)))
	defer buf.Put()
	for done := int64(0); done < n; done += int64(buf.Len()) {
		b := buf.Bytes()[:min(n-done, int64(buf.Len()))]
		if err := readAt(ctx, v.from, from+done, b); err != nil {
			return err
		}
		b = b[:(int64(len(b))+mask)&^mask]
		clear(b[min(n-done, int64(len(b))):])
		r := block.Request{Op: block.OpWrite, Off: to + done, Len: int64(len(b)), Data: block.Bytes(b)}
		if err := v.to.Do(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// commit makes the exceptions count whose data is in place, and all others that
// are ready, in the order of their places: so a crash leaves no place unused
// before one that is used. Those that have to wait for an earlier one are made
// by who makes that.
func (v *view) commit(ctx context.Context, mine []*pending) {
	c := v.cow
	c.mu.Lock()
	for _, p := range mine {
		p.copied = true
	}
	c.mu.Unlock()
	c.committing.Lock()
	defer c.committing.Unlock()
	c.mu.Lock()
	var all []exception
	for p := c.head; p != nil && p.copied; p = p.next {
		all = append(all, p.exception)
	}
	c.mu.Unlock()
	if len(all) == 0 {
		return
	}
	if c.store != nil {
		err := flush(ctx, v.to)
		if err == nil {
			err = c.store.add(ctx, v.to, all)
		}
		if err != nil {
			v.fail(ctx, fmt.Sprintf("writing metadata: %v", err))
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for range all { // others may have come after them meanwhile
		p := c.head
		c.made.put(p.exception)
		delete(c.pending, p.from)
		close(p.done)
		if c.head = p.next; c.head == nil {
			c.tail = nil
		}
	}
	c.committed += int64(len(all))
}

// invalidate ends the snapshot: it has lost, or is about to lose, something.
// When it returns, the store says so too, if it can be written at all: what was
// lost may then be lost.
func (v *view) invalidate(ctx context.Context, why string) {
	v.committing.Lock()
	defer v.committing.Unlock()
	v.fail(ctx, why)
}

// fail is invalidate with committing held.
func (v *view) fail(ctx context.Context, why string) {
	c := v.cow
	c.mu.Lock()
	if c.dead != nil {
		c.mu.Unlock()
		return
	}
	c.dead, c.why = make(chan struct{}), why
	failed := c.head
	c.head, c.tail, c.pending, c.made = nil, nil, nil, exceptions{}
	views := slices.Clone(c.views) // some may leave meanwhile
	c.mu.Unlock()
	if c.store != nil {
		if err := c.store.writeHeader(ctx, v.to, false); err != nil {
			why += fmt.Sprintf("; and its COW device could not be told: %v", err)
		}
	}
	for p := failed; p != nil; p = p.next {
		p.err = errSnapshotInvalid
		close(p.done)
	}
	close(c.dead)
	for _, x := range views {
		x.raise("invalid: " + why)
	}
}

// keep returns when the snapshot no longer needs these bytes of its origin, which
// are about to be changed. An error is that of ctx.
func (c *cow) keep(ctx context.Context, off, end int64) error {
	v := c.acquire()
	if v == nil {
		return nil
	}
	defer v.users.Done()
	step := int64(snapBatch) << c.shift
	for at := off; at < end; {
		to := min(at&^(step-1)+step, end)
		_, err := v.except(ctx, at, to, nil)
		if errors.Is(err, errSnapshotInvalid) {
			break // the origin goes on without it
		}
		if err != nil {
			return err
		}
		at = to
	}
	c.mu.Lock()
	reads := c.reads.over(off, end)
	c.mu.Unlock()
	return await(ctx, reads, false)
}

// kept reports whether the snapshot no longer needs these bytes.
//
// Hot: no allocation.
func (c *cow) kept(off, end int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reads.meets(off, end) {
		return false
	}
	if c.dead != nil {
		select {
		case <-c.dead:
			return true
		default:
			return false
		}
	}
	return c.own(off, end)
}

// own reports whether all chunks that [off, end) touches are exceptions; c.mu is
// held.
func (c *cow) own(off, end int64) bool {
	for i := off >> c.shift; i <= (end-1)>>c.shift; i++ {
		if _, ok := c.made.get(i); !ok {
			return false
		}
	}
	return true
}
