package keyslot

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/arena"
	"keyway/internal/point"
)

// maxBounce bounds the memory that one request takes for ciphertext, in
// bytes. Above it a write goes down in pieces; 256 KiB is past the size where
// more would make the medium faster.
const maxBounce = 256 << 10

// over is a device with an engine in front.
type over struct {
	dev      block.Device
	memory   block.Memory // dev, if it lends its bytes
	m        *Manager
	software bool // in place of an engine, for the counters

	// What dev said when it was put here. A reload beneath may change it; then
	// the choice below costs a pass of the cipher, no more.
	neverBlocks, writesBlock bool
}

// Over puts m's engine in front of dev. Requests with a context are transformed
// and go down without it; others pass as they are. The profile of the result is
// the engine's. Closing it closes dev, not m.
func Over(dev block.Device, m *Manager) block.Device { return put(dev, m, false) }

// Fallback is Over for the blk-crypto fallback: software in place of an engine.
func Fallback(dev block.Device, m *Manager) block.Device { return put(dev, m, true) }

func put(dev block.Device, m *Manager, software bool) block.Device {
	if m.engine == nil {
		panic("keyslot: a manager without slots has no engine to put over a device")
	}
	i := dev.Info()
	memory, _ := dev.(block.Memory)
	return &over{dev, memory, m, software, i.NeverBlocks, i.WritesBlock}
}

func (o *over) Info() block.Info {
	i := o.dev.Info()
	i.Crypto = o.m.Profile()
	return i
}

func (o *over) Close() error { return o.dev.Close() }

func (o *over) Under() []block.Span {
	return []block.Span{{Dev: o.dev, Len: o.dev.Info().Size}}
}

// Extents are those of the device: what a request without a context reads.
func (o *over) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return block.Extents(ctx, o.dev, off, n)
}

// Do performs r. A write is encrypted out of place, or in place with Scratch
// where nothing below can make it start again; a read is decrypted where it
// lies, or out of place if the memory is shared. What can be refused is
// refused before the device is asked.
//
// Hot: no allocation.
func (o *over) Do(ctx context.Context, r block.Request) error {
	k := r.Crypt.Key
	if k == nil {
		return o.dev.Do(ctx, r)
	}
	if r.Flags&block.KeyHeld == 0 {
		if err := k.Enter(r.Lane); err != nil {
			return err
		}
		defer k.Leave(r.Lane)
	}
	r.Flags &^= block.KeyHeld // the context goes no further
	t, start := o.m.began()
	err := o.transform(ctx, r)
	if err == nil {
		k.Served(r.Lane, o.software)
	}
	if t != nil && !errors.Is(err, block.ErrWouldBlock) {
		(*t).Request(Traced{r.Op, err != nil, r.Crypt, r.Off, r.Len, start, (*t).Now()})
	}
	return err
}

func (o *over) transform(ctx context.Context, r block.Request) error {
	k := r.Crypt.Key
	unit := k.Config().DataUnitSize
	if !r.Op.HasData() || r.Len&int64(unit-1) != 0 || int64(r.Data.Len()) != r.Len {
		return fmt.Errorf("%w: %v of %d bytes with a context of %d-byte data units", block.ErrInvalid, r.Op, r.Len, unit)
	}
	if err := o.m.check(k); err != nil {
		return err
	}
	if r.Len == 0 {
		r.Crypt = blkcrypto.Context{}
		return o.dev.Do(ctx, r)
	}
	if o.memory != nil && !unstable(&r) {
		if done, err := o.direct(ctx, &r); done {
			return err
		}
	}
	if r.Op == block.OpRead {
		return o.read(ctx, r)
	}
	// Shared memory stays as it is even with Scratch: its other owner could
	// put plaintext back after the cipher was there.
	if r.Flags&(block.Scratch|block.Shared) == block.Scratch {
		return o.writeInPlace(ctx, r)
	}
	return o.write(ctx, r)
}

// crypt transforms src to dst and holds a keyslot only meanwhile, so that no
// request waits for a slot, or for a device, while it has one.
func (o *over) crypt(ctx context.Context, d Direction, r *block.Request, dst, src block.Segments) error {
	s, err := o.m.Get(ctx, r.Crypt.Key, r.NoWait())
	if err != nil {
		return err
	}
	point.At("keyslot: transforming")
	err = s.Crypt(d, r.Crypt.DUN, dst, src)
	s.Put()
	return err
}

// direct transforms between the request and a medium that lends its bytes,
// with no copy beside. It reports whether it could.
func (o *over) direct(ctx context.Context, r *block.Request) (done bool, err error) {
	s, err := o.m.Get(ctx, r.Crypt.Key, r.NoWait())
	if err != nil {
		return true, err
	}
	defer s.Put()
	write := r.Op == block.OpWrite
	b, err := o.memory.Lend(r.Lane, r.Off, r.Len, write)
	if err != nil {
		return !errors.Is(err, block.ErrNotSupported), err
	}
	defer o.memory.Return(r.Lane, r.Off, r.Len, write)
	point.At("keyslot: transforming")
	if write {
		return true, s.Crypt(Encrypt, r.Crypt.DUN, block.Bytes(b), r.Data)
	}
	return true, s.Crypt(Decrypt, r.Crypt.DUN, r.Data, block.Bytes(b))
}

func (o *over) read(ctx context.Context, r block.Request) error {
	down := r
	down.Crypt = blkcrypto.Context{}
	if r.Flags&block.Shared != 0 {
		return o.readShared(ctx, r, down)
	}
	if err := o.dev.Do(ctx, down); err != nil {
		return err
	}
	point.At("keyslot: read")
	return o.crypt(ctx, Decrypt, &r, r.Data, r.Data)
}

// readShared keeps ciphertext out of memory that others see.
func (o *over) readShared(ctx context.Context, r, down block.Request) error {
	buf := arena.Get(min(maxBounce, int(r.Len)))
	defer buf.Put()
	down.Flags &^= block.Shared
	for done := int64(0); done < r.Len; done += down.Len {
		part := r.Sub(done, min(maxBounce, r.Len-done))
		down.Off, down.Len = part.Off, part.Len
		down.Data = block.Bytes(buf.Bytes()[:part.Len])
		if err := o.dev.Do(ctx, down); err != nil {
			return err
		}
		if err := o.crypt(ctx, Decrypt, &part, part.Data, down.Data); err != nil {
			return err
		}
	}
	return nil
}

// writeInPlace encrypts the caller's memory. If the device then asks to be
// called again, the memory must be as it was: it is decrypted again.
func (o *over) writeInPlace(ctx context.Context, r block.Request) error {
	if r.NoWait() && !o.neverBlocks {
		return o.write(ctx, r)
	}
	if err := o.crypt(ctx, Encrypt, &r, r.Data, r.Data); err != nil {
		return err
	}
	point.At("keyslot: encrypted")
	down := r
	down.Crypt = blkcrypto.Context{}
	err := o.dev.Do(ctx, down)
	if errors.Is(err, block.ErrWouldBlock) {
		again := r
		again.Flags &^= block.NoWait
		undo := o.crypt(context.WithoutCancel(ctx), Decrypt, &again, r.Data, r.Data)
		switch {
		case errors.Is(undo, blkcrypto.ErrKeyEvicted):
			return undo
		case undo != nil:
			// Not ErrProgram: the data is ciphertext, and software must not have it.
			return fmt.Errorf("%w: a write is encrypted in its place and cannot be undone: %v", block.ErrIO, undo)
		}
	}
	return err
}

// unstable reports whether r's data has to be copied before its cipher sees it:
// others may change it, and the cipher reads it twice.
func unstable(r *block.Request) bool {
	return r.Op == block.OpWrite && r.Flags&block.Shared != 0 && r.Crypt.Key.Config().Mode.WideBlock()
}

// write encrypts into memory of our own.
func (o *over) write(ctx context.Context, r block.Request) error {
	if r.NoWait() && (r.Len > maxBounce || o.writesBlock) {
		return block.ErrWouldBlock // before the work, and never in the middle
	}
	buf := arena.Get(min(maxBounce, int(r.Len)))
	defer buf.Put()
	down := r
	down.Crypt = blkcrypto.Context{}
	down.Flags = down.Flags&^block.Shared | block.Scratch
	for done := int64(0); done < r.Len; done += down.Len {
		part := r.Sub(done, min(maxBounce, r.Len-done))
		down.Off, down.Len = part.Off, part.Len
		down.Data = block.Bytes(buf.Bytes()[:part.Len])
		src := part.Data
		if unstable(&r) {
			src.CopyTo(buf.Bytes())
			src = down.Data
		}
		if err := o.crypt(ctx, Encrypt, &part, down.Data, src); err != nil {
			return err
		}
		point.At("keyslot: encrypted")
		if err := o.dev.Do(ctx, down); err != nil {
			return err
		}
	}
	return nil
}
