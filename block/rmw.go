package block

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"

	"keyway/internal/arena"
)

// RMW returns a device of 1-byte blocks on dev, for clients that ignore the
// block size: what does not fit dev's blocks is read, modified and written
// back. It is the only user of dev that may change it, or a change beside it
// can be lost. Closing it closes dev.
//
// Aligned requests go straight to dev; a change passes a gate on the way.
// The first unaligned change closes that gate once, waits for the changes
// inside, and from then on every change locks the bytes of its blocks. So an
// aligned write is never lost under a read-modify-write of the same block,
// and an export whose clients all behave never takes a lock.
//
// dev may change its block size (a table reload): it must refuse a request
// that does not fit with ErrInvalid before it touches data or medium.
func RMW(dev Device) Device {
	m := &rmw{dev: dev, switching: make(chan struct{}, 1)}
	m.refresh()
	return m
}

type rmw struct {
	dev  Device
	mask atomic.Int64 // dev's block size less one, as last seen

	gate      Gate          // aligned changes, until exact is set
	exact     atomic.Bool   // changes lock their range; set once, inside the closed gate
	switching chan struct{} // a token: who closes the gate
	locks     rangeLock
}

// refresh looks up dev's block size, and returns it less one.
func (m *rmw) refresh() int64 {
	mask := int64(m.dev.Info().LogicalBlock - 1)
	if mask < 0 || mask&(mask+1) != 0 {
		panic("block: RMW of a device whose block size is not a power of two")
	}
	m.mask.Store(mask)
	return mask
}

// Info is dev's with blocks of one byte. A change may have to wait for another
// one, so the result does not promise that it never blocks.
func (m *rmw) Info() Info {
	i := m.dev.Info()
	i.PhysicalBlock = max(i.PhysicalBlock, i.LogicalBlock)
	i.MinIO = max(i.MinIO, i.LogicalBlock)
	if i.LogicalBlock > 1 {
		i.NeverBlocks = false
	}
	i.LogicalBlock = 1
	return i
}

func (m *rmw) Close() error { return m.dev.Close() }

func (m *rmw) Under() []Span { return []Span{{Dev: m.dev, Len: m.dev.Info().Size}} }

func (m *rmw) Extents(ctx context.Context, off, n int64) iter.Seq2[Extent, error] {
	return Extents(ctx, m.dev, off, n)
}

// Do performs r. With NoWait an unaligned change is always ErrWouldBlock. One
// with a context goes down as it is: a block that holds data of others cannot
// be made whole under the numbers of this request.
//
// Hot: no allocation for an aligned request.
func (m *rmw) Do(ctx context.Context, r Request) error {
	if (r.Off|r.Len)&m.mask.Load() == 0 && !m.exact.Load() {
		if !r.Op.Changes() {
			if err := m.dev.Do(ctx, r); err == nil || !errors.Is(err, ErrInvalid) {
				return err
			}
		} else if err := m.gate.Enter(ctx, r.Lane, r.NoWait()); err != nil {
			return err
		} else if m.exact.Load() {
			m.gate.Leave(r.Lane)
		} else {
			err := m.dev.Do(ctx, r)
			m.gate.Leave(r.Lane)
			if err == nil || !errors.Is(err, ErrInvalid) {
				return err
			}
		}
	}
	return m.doSlow(ctx, r)
}

// doSlow performs what Do did not.
func (m *rmw) doSlow(ctx context.Context, r Request) error {
	mask := m.mask.Load()
	for again := 0; ; again++ {
		err := m.try(ctx, r, mask)
		if err == nil || !errors.Is(err, ErrInvalid) {
			return err
		}
		// The refusal may come from a block size that mask is not, even if it
		// is gone by now: then one more try decides.
		used := mask
		if mask = m.refresh(); mask == used && again > 0 {
			return err
		}
	}
}

func (m *rmw) try(ctx context.Context, r Request, mask int64) error {
	aligned := (r.Off|r.Len)&mask == 0 || r.Op == OpFlush || r.Crypt.Active()
	switch {
	case aligned && !r.Op.Changes():
		return m.dev.Do(ctx, r)
	case aligned:
		return m.change(ctx, r)
	}
	i := m.dev.Info()
	if err := CheckAt(&r, i.Size, 1, i.ReadOnly); err != nil {
		return err
	}
	if r.Len == 0 {
		return nil
	}
	if r.Op == OpRead {
		return m.read(ctx, r, mask)
	}
	if r.Op == OpDiscard {
		// The content of the edges is not ours to lose.
		end := (r.Off + r.Len) &^ mask
		r.Off = (r.Off + mask) &^ mask
		if r.Len = end - r.Off; r.Len <= 0 {
			return nil
		}
		return m.change(ctx, r)
	}
	if r.NoWait() {
		return ErrWouldBlock
	}
	if err := m.becomeExact(ctx); err != nil {
		return err
	}
	h, err := m.locks.lock(ctx, r.Off&^mask, (r.Off+r.Len+mask)&^mask, false)
	if err != nil {
		return err
	}
	defer m.locks.unlock(h)
	return m.modify(ctx, r, mask)
}

// change performs an aligned change.
func (m *rmw) change(ctx context.Context, r Request) error {
	if !m.exact.Load() {
		if err := m.gate.Enter(ctx, r.Lane, r.NoWait()); err != nil {
			return err
		}
		if !m.exact.Load() {
			err := m.dev.Do(ctx, r)
			m.gate.Leave(r.Lane)
			return err
		}
		m.gate.Leave(r.Lane)
	}
	h, err := m.locks.lock(ctx, r.Off, r.Off+r.Len, r.NoWait())
	if err != nil {
		return err
	}
	err = m.dev.Do(ctx, r)
	m.locks.unlock(h)
	return err
}

// becomeExact returns when every change that began without a lock has ended.
func (m *rmw) becomeExact(ctx context.Context) error {
	if m.exact.Load() {
		return nil
	}
	select {
	case m.switching <- struct{}{}:
		defer func() { <-m.switching }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if m.exact.Load() {
		return nil
	}
	err := m.gate.Close(ctx)
	if err == nil {
		m.exact.Store(true)
	}
	m.gate.Open()
	return err
}

// split cuts an unaligned range into the part in its first block, the whole
// blocks, and the part in its last block. Any may be empty; a range within one
// block is all head.
func split(off, n, mask int64) (head, middle, tail int64) {
	if off&mask != 0 || n <= mask {
		head = min(n, mask+1-off&mask)
	}
	tail = (n - head) & mask
	return head, n - head - tail, tail
}

// read bounces the edges.
func (m *rmw) read(ctx context.Context, r Request, mask int64) error {
	buf := arena.Get(int(mask + 1))
	defer buf.Put()
	head, middle, tail := split(r.Off, r.Len, mask)
	if err := m.readEdge(ctx, r.Sub(0, head), buf.Bytes()); err != nil {
		return err
	}
	if middle > 0 {
		if err := m.dev.Do(ctx, r.Sub(head, middle)); err != nil {
			return err
		}
	}
	return m.readEdge(ctx, r.Sub(head+middle, tail), buf.Bytes())
}

func (m *rmw) readEdge(ctx context.Context, r Request, buf []byte) error {
	if r.Len == 0 {
		return nil
	}
	in, err := m.readBlock(ctx, r, buf)
	if err == nil {
		r.Data.CopyFrom(buf[in:])
	}
	return err
}

// readBlock reads the block around r into buf and returns where r begins in it.
func (m *rmw) readBlock(ctx context.Context, r Request, buf []byte) (in int64, err error) {
	in = r.Off & int64(len(buf)-1)
	whole := Request{
		Op: OpRead, Flags: r.Flags & (NoWait | SkipDefaultKey), Lane: r.Lane,
		Off: r.Off - in, Len: int64(len(buf)), Data: Bytes(buf),
	}
	return in, m.dev.Do(ctx, whole)
}

// modify performs an unaligned write, or write of zeroes, under a lock of its
// blocks.
func (m *rmw) modify(ctx context.Context, r Request, mask int64) error {
	head, middle, tail := split(r.Off, r.Len, mask)
	// First the blocks: a refusal of FastZero must come before any change.
	if middle > 0 {
		part := r.Sub(head, middle)
		part.Flags &^= Scratch // Do may begin anew if an edge is refused
		if err := m.dev.Do(ctx, part); err != nil {
			return err
		}
	} else if r.Op == OpWriteZeroes && r.Flags&FastZero != 0 {
		return ErrNotSupported
	}
	buf := arena.Get(int(mask + 1))
	defer buf.Put()
	if err := m.modifyEdge(ctx, r.Sub(0, head), buf.Bytes()); err != nil {
		return err
	}
	return m.modifyEdge(ctx, r.Sub(head+middle, tail), buf.Bytes())
}

func (m *rmw) modifyEdge(ctx context.Context, r Request, buf []byte) error {
	if r.Len == 0 {
		return nil
	}
	in, err := m.readBlock(ctx, r, buf)
	if err != nil {
		return err
	}
	if r.Op == OpWrite {
		r.Data.CopyTo(buf[in:])
	} else {
		clear(buf[in : in+r.Len])
	}
	return m.dev.Do(ctx, Request{
		Op: OpWrite, Flags: r.Flags&(FUA|SkipDefaultKey) | Scratch, Lane: r.Lane,
		Off: r.Off - in, Len: int64(len(buf)), Data: Bytes(buf),
	})
}
