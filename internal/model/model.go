// Package model is a reference disk: what may be read after a history of
// requests, and what may be on the medium after a loss of power.
//
// The fault model. Each block (the unit that power loss does not tear) has the
// versions that were written to it. A change is pending from Begin to End. A
// version is durable once a flush that began after its End has succeeded, or
// at the End of its own write if that had FUA. At a crash each block takes,
// on its own, the durable version or any later one: writes since the last
// flush may be lost, reordered, and torn between blocks, but never within
// one, and nothing comes back that a durable version replaced. A discarded
// block may hold anything.
package model

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
)

// A Disk is the bookkeeping of one device. Its methods may be called
// concurrently.
type Disk struct {
	block int

	mu     sync.Mutex // guards what follows
	clock  uint64     // ticks at each Begin and End
	blocks [][]version
}

// A version is one content of a block; the first of a block's list is the
// oldest that a crash may bring back.
type version struct {
	data       []byte // nil: anything
	began, end uint64 // end 0: pending
}

// New returns a disk of zeroes; size is a multiple of block, both in bytes.
func New(size int64, block int) *Disk {
	d := &Disk{block: block, blocks: make([][]version, size/int64(block)), clock: 1}
	zero := make([]byte, block)
	for i := range d.blocks {
		d.blocks[i] = []version{{zero, 1, 1}}
	}
	return d
}

// A Change is a write, or a discard, that has begun.
type Change struct {
	d           *Disk
	first, last int // blocks; last is beyond
	began       uint64
}

// Begin records that data is about to be written at off; whole blocks.
func (d *Disk) Begin(off int64, data []byte) *Change {
	data = bytes.Clone(data)
	return d.begin(off, int64(len(data)), func(i int) []byte { return data[i*d.block:][:d.block] })
}

// BeginZero records a write of zeroes.
func (d *Disk) BeginZero(off, n int64) *Change {
	zero := make([]byte, d.block)
	return d.begin(off, n, func(int) []byte { return zero })
}

// BeginDiscard records a discard.
func (d *Disk) BeginDiscard(off, n int64) *Change {
	return d.begin(off, n, func(int) []byte { return nil })
}

func (d *Disk) begin(off, n int64, data func(i int) []byte) *Change {
	if off%int64(d.block) != 0 || n%int64(d.block) != 0 {
		panic("model: a change of less than a block")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock++
	c := &Change{d, int(off / int64(d.block)), int((off + n) / int64(d.block)), d.clock}
	for b := c.first; b < c.last; b++ {
		d.blocks[b] = append(d.blocks[b], version{data: data(b - c.first), began: c.began})
	}
	return c
}

// End records that the change has returned: successfully, and with FUA. One
// that failed may be on the medium or not, and stays pending.
func (c *Change) End(ok, fua bool) {
	if !ok {
		return
	}
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock++
	for b := c.first; b < c.last; b++ {
		for i := range d.blocks[b] {
			if v := &d.blocks[b][i]; v.began == c.began {
				v.end = d.clock
				if fua {
					d.durable(b, i)
				}
				break
			}
		}
	}
}

// durable drops the versions of a block that version i has replaced for good:
// those that ended before it began.
func (d *Disk) durable(b, i int) {
	began := d.blocks[b][i].began
	kept := d.blocks[b][:0]
	for _, v := range d.blocks[b] {
		if v.end == 0 || v.end >= began {
			kept = append(kept, v)
		}
	}
	d.blocks[b] = kept
}

// BeginFlush returns the moment before a flush, for EndFlush.
func (d *Disk) BeginFlush() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clock
}

// EndFlush records that the flush that began at the given moment succeeded.
func (d *Disk) EndFlush(began uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for b := range d.blocks {
		for i := len(d.blocks[b]) - 1; i > 0; i-- {
			if v := d.blocks[b][i]; v.end != 0 && v.end <= began {
				d.durable(b, i)
				break
			}
		}
	}
}

// visible reports whether a read may see version i: nothing that began after
// its end has ended.
func visible(all []version, i int) bool {
	for _, w := range all {
		if all[i].end != 0 && w.end != 0 && w.began > all[i].end {
			return false
		}
	}
	return true
}

// Read returns what n bytes at off hold, where no change is pending and
// nothing was discarded.
func (d *Disk) Read(off, n int64) []byte {
	got := make([]byte, n)
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := int64(0); at < n; {
		pos := (off + at) % int64(d.block)
		all := d.blocks[(off+at)/int64(d.block)]
		at += int64(copy(got[at:], all[len(all)-1].data[pos:]))
	}
	return got
}

// Check returns an error unless got may have been read at off, by a read that
// no change began or ended beside. Whole blocks.
func (d *Disk) Check(off int64, got []byte) error {
	return d.each(off, got, "read", visible)
}

// Legal returns an error unless medium may be what is at off after a loss of
// power now. Whole blocks.
func (d *Disk) Legal(off int64, medium []byte) error {
	return d.each(off, medium, "after the crash", func([]version, int) bool { return true })
}

func (d *Disk) each(off int64, got []byte, when string, allowed func([]version, int) bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := 0; at < len(got); at += d.block {
		b := int((off + int64(at)) / int64(d.block))
		if err := d.match(b, got[at:at+d.block], allowed); err != nil {
			return fmt.Errorf("%s: %w", when, err)
		}
	}
	return nil
}

func (d *Disk) match(b int, got []byte, allowed func([]version, int) bool) error {
	all := d.blocks[b]
	var want []byte
	n := 0
	for i, v := range all {
		if !allowed(all, i) {
			continue
		}
		if v.data == nil || bytes.Equal(v.data, got) {
			return nil
		}
		want = v.data
		n++
	}
	at := 0
	for at < len(got)-1 && got[at] == want[at] {
		at++
	}
	return fmt.Errorf("block %d (of %d bytes) is none of %d possible versions; against the last one byte %d is %#02x, want %#02x",
		b, d.block, n, at, got[at], want[at])
}

// Crash returns a medium as a loss of power may leave it. The same seed and
// history give the same medium.
func (d *Disk) Crash(seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 0x6b6579776179))
	d.mu.Lock()
	defer d.mu.Unlock()
	medium := make([]byte, len(d.blocks)*d.block)
	for b, all := range d.blocks {
		at := medium[b*d.block:][:d.block]
		if v := all[rnd.IntN(len(all))]; v.data != nil {
			copy(at, v.data)
			continue
		}
		for i := range at {
			at[i] = byte(rnd.Uint32())
		}
	}
	return medium
}
