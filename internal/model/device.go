package model

import (
	"context"

	"keyway/block"
)

// A Device is a disk with a volatile cache, as strict as the interface
// allows. Its Disk tells what a crash may leave.
type Device struct {
	*Disk
	info block.Info
}

// NewDevice returns a device of zeroes. i gives size, logical block (also the
// unit of tearing) and FUA; the rest is as the model is.
func NewDevice(i block.Info) *Device {
	i.PhysicalBlock = max(i.PhysicalBlock, i.LogicalBlock)
	i.Discard, i.Zeroes = block.Native, block.Native
	i.VolatileCache, i.NeverBlocks = true, true
	return &Device{New(i.Size, i.LogicalBlock), i}
}

func (d *Device) Info() block.Info { return d.info }
func (d *Device) Close() error     { return nil }

// Do performs r. A write with FUA on a device that says it has none stays
// volatile: whoever relies on it loses data here.
func (d *Device) Do(_ context.Context, r block.Request) error {
	if err := block.Check(r, d.info); err != nil {
		return err
	}
	if r.Crypt.Active() {
		return block.ErrNoCrypto
	}
	fua := r.Flags&block.FUA != 0 && d.info.FUA == block.Native
	switch r.Op {
	case block.OpRead:
		r.Data.CopyFrom(d.current(r.Off, r.Len))
	case block.OpWrite:
		data := make([]byte, r.Len)
		r.Data.CopyTo(data)
		d.Begin(r.Off, data).End(true, fua)
		if r.Flags&block.Scratch != 0 {
			for b := range r.Data.All() {
				for i := range b {
					b[i] = ^b[i] // allowed, so somebody may do it
				}
			}
		}
	case block.OpWriteZeroes:
		d.BeginZero(r.Off, r.Len).End(true, fua)
	case block.OpDiscard:
		d.BeginDiscard(r.Off, r.Len).End(true, fua)
	case block.OpFlush:
		d.EndFlush(d.BeginFlush())
	}
	return nil
}

// current reads the last version; a discarded block reads as a pattern.
func (d *Device) current(off, n int64) []byte {
	got := make([]byte, 0, n)
	d.mu.Lock()
	defer d.mu.Unlock()
	for b := off / int64(d.block); b < (off+n)/int64(d.block); b++ {
		all := d.blocks[b]
		data := all[len(all)-1].data
		for i := 0; data == nil && i < d.block; i++ {
			got = append(got, 0xdd)
		}
		got = append(got, data...)
	}
	return got
}
