package dmtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"keyway/block"
)

// RAM is a disk in memory that tests can look into and interfere with.
type RAM struct {
	// Before, if set, is called before each request; an error ends it. Set it
	// before the disk is used.
	Before func(ctx context.Context, r block.Request) error

	info   block.Info
	closed atomic.Bool
	counts [5]atomic.Int64 // by Op
	inside atomic.Int64

	mu    sync.RWMutex
	bytes []byte
}

// NewRAM returns a disk of n bytes, all zero.
func NewRAM(n int64) *RAM {
	return &RAM{
		bytes: make([]byte, n),
		info: block.Info{
			Size: n, LogicalBlock: 512, PhysicalBlock: 512, FUA: block.Native,
			Discard: block.Native, Zeroes: block.Native, NeverBlocks: true,
		},
	}
}

// Do performs r at once. It refuses contexts, as a medium must.
func (d *RAM) Do(ctx context.Context, r block.Request) error {
	d.inside.Add(1)
	defer d.inside.Add(-1)
	if d.closed.Load() {
		return block.ErrClosed
	}
	d.counts[r.Op].Add(1)
	if d.Before != nil {
		if err := d.Before(ctx, r); err != nil {
			return err
		}
	}
	if err := block.Check(r, d.info); err != nil {
		return err
	}
	if r.Crypt.Active() {
		return block.ErrNoCrypto
	}
	at := d.bytes[r.Off : r.Off+r.Len]
	switch r.Op {
	case block.OpRead:
		d.mu.RLock()
		defer d.mu.RUnlock()
		r.Data.CopyFrom(at)
	case block.OpWrite:
		d.mu.Lock()
		defer d.mu.Unlock()
		r.Data.CopyTo(at)
	case block.OpWriteZeroes, block.OpDiscard:
		d.mu.Lock()
		defer d.mu.Unlock()
		clear(at)
	}
	return nil
}

// Info describes the disk.
func (d *RAM) Info() block.Info { return d.info }

// SetInfo changes what Info says; before the disk is used.
func (d *RAM) SetInfo(change func(*block.Info)) { change(&d.info) }

// Close makes every later request fail.
func (d *RAM) Close() error {
	if d.closed.Swap(true) {
		return fmt.Errorf("dmtest: disk closed twice")
	}
	return nil
}

// Closed reports whether the disk was closed.
func (d *RAM) Closed() bool { return d.closed.Load() }

// Count is the number of requests of a kind so far.
func (d *RAM) Count(op block.Op) int64 { return d.counts[op].Load() }

// Inside is the number of requests in progress.
func (d *RAM) Inside() int64 { return d.inside.Load() }

// Bytes returns a copy of the medium.
func (d *RAM) Bytes() []byte {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return append([]byte(nil), d.bytes...)
}

// Set overwrites the medium from its beginning.
func (d *RAM) Set(b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.bytes, b)
}
