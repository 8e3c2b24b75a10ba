package history

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"keyway/block"
	"keyway/internal/model"
)

// canary begins every sector of plaintext that must be encrypted on its whole way:
// no leaf ever sees it.
var canary = []byte("PLAINTEXT-CANARY")

// A leaf is a disk with a volatile cache, and what the model knows of it.
type leaf struct {
	name        string
	size, block int64
	fua         bool
	lends       bool // it lends its bytes
	engine      *engine
	spec        spec

	medium *medium // what may be on it

	disk *disk
}

// A disk is what the product gets to stand on.
type disk struct {
	*model.Device
	name string

	mu     sync.Mutex
	dead   bool          // the power is cut: nothing reaches the medium any more
	wrong  []string      // what must not have come
	hold   chan struct{} // requests wait until it is closed
	inside int
}

func (l *leaf) newDisk(content []byte) *disk {
	fua := block.None
	if l.fua {
		fua = block.Native
	}
	d := &disk{Device: model.NewDevice(block.Info{Size: l.size, LogicalBlock: int(l.block), FUA: fua}), name: l.name}
	if content != nil {
		r := block.Request{Op: block.OpWrite, Len: l.size, Data: block.Bytes(content)}
		if err := d.Device.Do(context.Background(), r); err != nil {
			panic(err)
		}
		d.EndFlush(d.BeginFlush())
	}
	return d
}

// device is what goes under a leaf device.
func (l *leaf) device() block.Device {
	if l.lends {
		return &lender{l.disk, map[loan][]byte{}}
	}
	return l.disk
}

// Do performs a request, once nobody holds it.
func (d *disk) Do(ctx context.Context, r block.Request) error {
	if err := d.enter(&r); err != nil {
		return err
	}
	defer d.leave()
	return d.Device.Do(ctx, r)
}

func (d *disk) enter(r *block.Request) error {
	d.mu.Lock()
	d.inside++
	hold := d.hold
	if r.Op == block.OpWrite {
		d.look(r.Off, r.Data)
	}
	d.mu.Unlock()
	if hold != nil {
		<-hold
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		d.inside--
		return fmt.Errorf("%w: no power", block.ErrIO)
	}
	return nil
}

func (d *disk) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
}

// look notes plaintext.
func (d *disk) look(off int64, data block.Segments) {
	b := make([]byte, data.Len())
	data.CopyTo(b)
	if at := bytes.Index(b, canary); at >= 0 {
		d.wrong = append(d.wrong, fmt.Sprintf("%s: plaintext at %d (blkcrypto.md, invariant 1)", d.name, off+int64(at)))
	}
}

func (d *disk) setHold(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case on && d.hold == nil:
		d.hold = make(chan struct{})
	case !on && d.hold != nil:
		close(d.hold)
		d.hold = nil
	}
}

// cut is the loss of power: it returns what is left.
func (d *disk) cut(seed uint64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	return d.Crash(seed)
}

// content is what the disk reads as.
func (d *disk) content() []byte {
	b := make([]byte, d.Info().Size)
	r := block.Request{Op: block.OpRead, Len: int64(len(b)), Data: block.Bytes(b)}
	if err := d.Device.Do(context.Background(), r); err != nil {
		panic(err)
	}
	return b
}

// A lender is a disk that lends its bytes, so that an engine transforms straight
// from and to the medium.
type lender struct {
	*disk
	loans map[loan][]byte // guarded by disk.mu
}

type loan struct {
	lane   uint16
	off, n int64
	write  bool
}

// Lend lends what is there, or what will be; not the same twice at a time.
func (l *lender) Lend(lane uint16, off, n int64, write bool) ([]byte, error) {
	b := make([]byte, n)
	r := block.Request{Op: block.OpRead, Off: off, Len: n, Data: block.Bytes(b)}
	if err := l.disk.Do(context.Background(), r); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := loan{lane, off, n, write}
	if l.loans[id] != nil {
		return nil, block.ErrNotSupported
	}
	l.loans[id] = b
	return b, nil
}

// Return ends a loan.
func (l *lender) Return(lane uint16, off, n int64, write bool) {
	l.mu.Lock()
	id := loan{lane, off, n, write}
	b := l.loans[id]
	delete(l.loans, id)
	if write {
		l.look(off, block.Bytes(b))
	}
	dead := l.dead
	l.mu.Unlock()
	if !write || dead {
		return
	}
	r := block.Request{Op: block.OpWrite, Off: off, Len: n, Data: block.Bytes(b)}
	if err := l.Device.Do(context.Background(), r); err != nil {
		panic(err)
	}
}
