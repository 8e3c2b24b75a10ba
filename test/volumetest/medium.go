// Package volumetest has what tests of volumes share: media whose bytes tests change,
// and a reader of everything that a volume has.
package volumetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"keyway/block"
)

// ErrTooMuch ends what does not end.
var ErrTooMuch = errors.New("far more is read than there is")

// A Medium is a disk over bytes that may be shared with others. It takes no writes.
type Medium struct {
	Bytes []byte
	left  atomic.Int64 // bytes that may still be read, if limited
	limit bool
}

// Limit lets no more than so many bytes be read from now on.
func (m *Medium) Limit(n int64) {
	m.limit = true
	m.left.Store(n)
}

// Do performs r at once. It refuses contexts, as a medium must.
func (m *Medium) Do(_ context.Context, r block.Request) error {
	if err := block.Check(r, m.Info()); err != nil {
		return err
	}
	if r.Crypt.Active() {
		return block.ErrNoCrypto
	}
	if r.Op.Changes() {
		return block.ErrReadOnly // not told by Info, so that tables need not be
	}
	if r.Op == block.OpRead {
		if m.limit && m.left.Add(-r.Len-64) < 0 {
			return ErrTooMuch
		}
		r.Data.CopyFrom(m.Bytes[r.Off:][:r.Len])
	}
	return nil
}

// Info describes the disk.
func (m *Medium) Info() block.Info {
	return block.Info{Size: int64(len(m.Bytes)), LogicalBlock: 512, PhysicalBlock: 512, NeverBlocks: true}
}

// Close does nothing.
func (m *Medium) Close() error { return nil }

// Linear is the table of a device of n bytes over another.
func Linear(n int, dev string) string { return fmt.Sprintf("0 %d linear %s 0", n/512, dev) }
