package keyslot_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/test/naive"
)

// ram is a disk in memory that takes every liberty of the interface: it
// spoils Scratch data that it has written. before, if set, is asked first and
// may refuse.
type ram struct {
	tb     testing.TB
	info   block.Info
	mem    []byte
	before func(r block.Request) error

	mu   sync.Mutex
	seen []block.Request // with log
	log  bool
}

func newRAM(tb testing.TB, size int) *ram {
	return &ram{tb: tb, mem: make([]byte, size), info: block.Info{Size: int64(size), LogicalBlock: 512, NeverBlocks: true}}
}

func (d *ram) Info() block.Info { return d.info }
func (d *ram) Close() error     { return nil }

func (d *ram) Do(_ context.Context, r block.Request) error {
	if r.Crypt.Active() {
		d.tb.Error("a context reached the disk (blkcrypto.md invariant 1)")
		return block.ErrNoCrypto
	}
	if d.log {
		d.mu.Lock()
		d.seen = append(d.seen, r)
		d.mu.Unlock()
	}
	if d.before != nil {
		if err := d.before(r); err != nil {
			return err
		}
	}
	switch r.Op {
	case block.OpRead:
		r.Data.CopyFrom(d.mem[r.Off:][:r.Len])
	case block.OpWrite:
		r.Data.CopyTo(d.mem[r.Off:][:r.Len])
		if r.Flags&block.Scratch != 0 {
			r.Data.Clear()
		}
	}
	return nil
}

func (d *ram) take() []block.Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := d.seen
	d.seen = nil
	return seen
}

// shares reports whether s lies in the memory of the segments of b.
func shares(s block.Segments, b [][]byte) bool {
	for x := range s.All() {
		for _, y := range b {
			if len(y) == 0 {
				continue
			}
			px, py := uintptr(unsafe.Pointer(&x[0])), uintptr(unsafe.Pointer(&y[0]))
			if px < py+uintptr(len(y)) && py < px+uintptr(len(x)) {
				return true
			}
		}
	}
	return false
}

// reference encrypts plain in place by the naive cipher, unit by unit.
func reference(k testKey, dun blkcrypto.DUN, plain []byte) {
	c := k.Config()
	for len(plain) > 0 {
		var iv [16]byte
		dun.PutIV(iv[:])
		naive.EncryptIV(k.bytes, iv, plain[:c.DataUnitSize])
		step := uint64(1)
		if c.Numbering == blkcrypto.BySector {
			step = uint64(c.DataUnitSize / 512)
		}
		dun, _ = dun.Add(step)
		plain = plain[c.DataUnitSize:]
	}
}

func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// cut copies b into segments of random lengths around typical, some empty.
func cut(rng *rand.Rand, b []byte, typical int) [][]byte {
	var v [][]byte
	for len(b) > 0 {
		n := min(rng.IntN(2*typical), len(b))
		v = append(v, append(make([]byte, 0, n), b[:n]...))
		b = b[n:]
	}
	return v
}

func join(v [][]byte) []byte {
	var b []byte
	for _, s := range v {
		b = append(b, s...)
	}
	return b
}
