package target

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"keyway/block"
	"keyway/dm"
)

// The disk log of a mirror as Linux has it, little-endian throughout: magic and
// version (32 bits each) and the number of regions (64 bits) at byte 0, and from
// byte 1024 on a bit for each region, the first in bit 0 of the first byte, set if
// the region is clean: in sync, and not being written to.
//
// In the rest of the first 1024 bytes, which Linux leaves as they are, is a note of
// ours, at byte 512: which leg is the source of what is not in sync, if it is not
// the first one. It holds a magic, the leg's tag and a CRC-32 of both.
const (
	mirrorMagic    = 0x4D695272
	mirrorVersion  = 2
	mirrorBits     = 1024
	mirrorNote     = 512
	mirrorNoteSize = 20
)

var mirrorNoteMagic = []byte("KWmirror")

// A diskLog remembers which regions of a mirror may differ between its legs.
type diskLog struct {
	dev   block.Device
	name  string
	block int64 // bytes: what is written at a time
	tags  [][]byte

	failed, flushFailed atomic.Bool
	told                atomic.Bool // that it failed

	place *logPlace // nil until it is loaded; set with the token loading of its mirror

	mu      sync.Mutex // guards what follows
	image   []byte     // what is to be on the medium
	lo, hi  int64      // what of it is not yet there, in bytes
	marks   uint64     // changes that must be durable before somebody goes on
	lasting uint64     // of those, durable
}

// A logPlace is the device that a log is on. When a table has been replaced by one
// with the same log, for a moment both are there: only the one that has loaded it
// last may write.
type logPlace struct {
	token chan struct{} // held by who reads or writes
	owner *diskLog      // guarded by token
	users int           // guarded by logPlaces.mu
}

var logPlaces = struct {
	mu sync.Mutex
	by map[any]*logPlace
}{by: map[any]*logPlace{}}

func logIdentity(dev block.Device) any {
	if h, ok := dev.(*dm.Handle); ok {
		return h.Mapped
	}
	return dev
}

func placeOf(dev block.Device) *logPlace {
	logPlaces.mu.Lock()
	defer logPlaces.mu.Unlock()
	p := logPlaces.by[logIdentity(dev)]
	if p == nil {
		p = &logPlace{token: make(chan struct{}, 1)}
		logPlaces.by[logIdentity(dev)] = p
	}
	p.users++
	return p
}

// release gives back what load took.
func (l *diskLog) release() {
	if l.place == nil {
		return
	}
	logPlaces.mu.Lock()
	defer logPlaces.mu.Unlock()
	if l.place.users--; l.place.users == 0 {
		delete(logPlaces.by, logIdentity(l.dev))
	}
}

func newDiskLog(dev block.Device, name string, n int64, legs []*mirrorLeg) (*diskLog, error) {
	i := dev.Info()
	l := &diskLog{dev: dev, name: name, block: int64(i.LogicalBlock)}
	size := mirrorBits + (n+31)/32*4
	size = (size + l.block - 1) / l.block * l.block
	if size > i.Size {
		return nil, fmt.Errorf("log device %q is too small: %d regions need %d sectors, it has %d", name, n, (size+511)>>9, i.Size>>9)
	}
	l.image = make([]byte, size)
	for _, leg := range legs {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", leg.name, leg.start))
		l.tags = append(l.tags, sum[:8])
	}
	return l, nil
}

// load reads the log, makes it ours and n regions long, and returns the leg that
// has what is not in sync. A log that cannot be read, or understood, is errNoLog if
// strict, and else one that says that nothing is in sync; then, and if the log
// cannot be written, the error is for people. If ctx has ended nothing is loaded.
func (l *diskLog) load(ctx context.Context, n int64, start startAs, strict, readOnly bool) (source int, err error) {
	if l.place == nil {
		l.place = placeOf(l.dev)
	}
	if err := l.take(ctx); err != nil {
		return 0, err
	}
	defer func() { <-l.place.token }()
	old, err := l.read(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return 0, err
		}
		l.failed.Store(true)
		if strict {
			return 0, fmt.Errorf("%w: %w", errNoLog, err)
		}
	}
	l.mu.Lock()
	clear(l.image)
	known := int64(0)
	if binary.LittleEndian.Uint32(old) == mirrorMagic {
		known = int64(min(binary.LittleEndian.Uint64(old[8:]), uint64(n)))
		copy(l.image[mirrorNote:mirrorBits], old[mirrorNote:])
	}
	for i := range n {
		if start == allSync || start == byLog && i < known && old[mirrorBits+i/8]>>(i%8)&1 != 0 {
			l.image[mirrorBits+i/8] |= 1 << (i % 8)
		}
	}
	binary.LittleEndian.PutUint32(l.image, mirrorMagic)
	binary.LittleEndian.PutUint32(l.image[4:], mirrorVersion)
	binary.LittleEndian.PutUint64(l.image[8:], uint64(n))
	source = l.source()
	l.touch(0, int64(len(l.image)))
	l.marks++
	l.mu.Unlock()
	if readOnly {
		return source, err
	}
	l.place.owner = l
	if failed := l.write(ctx); failed != nil {
		if ctx.Err() != nil {
			return 0, failed
		}
		if err == nil {
			err = failed
		}
	}
	return source, err
}

// errNoLog is a log that does not say what is in sync.
var errNoLog = errors.New("the log cannot be read")

// read returns what is on the medium; where that is no log that we understand, with
// an error, it is empty.
func (l *diskLog) read(ctx context.Context) ([]byte, error) {
	old := make([]byte, len(l.image))
	if err := l.dev.Do(ctx, block.Request{Op: block.OpRead, Len: int64(len(old)), Data: block.Bytes(old)}); err != nil {
		return make([]byte, len(old)), err
	}
	if v := binary.LittleEndian.Uint32(old[4:]); binary.LittleEndian.Uint32(old) == mirrorMagic && v != 1 && v != mirrorVersion {
		return make([]byte, len(old)), fmt.Errorf("it has version %d, not %d", v, mirrorVersion)
	}
	return old, nil
}

// take waits for the device of the log.
func (l *diskLog) take(ctx context.Context) error {
	select {
	case l.place.token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// source is the leg that the note names, or the first.
func (l *diskLog) source() int {
	note := l.image[mirrorNote:][:mirrorNoteSize]
	if bytes.Equal(note[:8], mirrorNoteMagic) && crc32.ChecksumIEEE(note[:16]) == binary.LittleEndian.Uint32(note[16:]) {
		for i, tag := range l.tags {
			if bytes.Equal(tag, note[8:16]) {
				return i
			}
		}
	}
	return 0
}

// isClean reports whether the log says so of region i.
func (l *diskLog) isClean(i int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.image[mirrorBits+i/8]>>(i%8)&1 != 0
}

// setSource notes which leg is the source, for the next sync.
func (l *diskLog) setSource(leg int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	note := l.image[mirrorNote:][:mirrorNoteSize]
	copy(note, mirrorNoteMagic)
	copy(note[8:], l.tags[leg])
	binary.LittleEndian.PutUint32(note[16:], crc32.ChecksumIEEE(note[:16]))
	l.touch(mirrorNote, mirrorNote+mirrorNoteSize)
	l.marks++
}

// touch notes that bytes of the image are to be written; l.mu is held.
func (l *diskLog) touch(lo, hi int64) {
	lo, hi = lo/l.block*l.block, (hi+l.block-1)/l.block*l.block
	if l.lo < l.hi {
		lo, hi = min(lo, l.lo), max(hi, l.hi)
	}
	l.lo, l.hi = lo, hi
}

// mark says, for the next sync, that the regions from first to last are not clean.
func (l *diskLog) mark(first, last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := false
	for i := first; i <= last; i++ {
		if b := &l.image[mirrorBits+i/8]; *b>>(i%8)&1 != 0 {
			*b &^= 1 << (i % 8)
			changed = true
		}
	}
	if changed {
		l.touch(mirrorBits+first/8, mirrorBits+last/8+1)
		l.marks++
	}
}

// clean says that region i is. That need not be durable: a log that does not know
// it makes work, no more.
func (l *diskLog) clean(i int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.image[mirrorBits+i/8] |= 1 << (i % 8)
	l.touch(mirrorBits+i/8, mirrorBits+i/8+1)
}

// sync returns when every mark and source set before is durable. Whoever comes
// while another writes finds it done by that one, or does it for those who came
// meanwhile.
func (l *diskLog) sync(ctx context.Context) error {
	l.mu.Lock()
	need := l.marks
	done := l.lasting >= need
	l.mu.Unlock()
	if done {
		return nil
	}
	if err := l.take(ctx); err != nil {
		return err
	}
	defer func() { <-l.place.token }()
	l.mu.Lock()
	done = l.lasting >= need
	l.mu.Unlock()
	if done {
		return nil
	}
	return l.write(ctx)
}

// tidy writes what is clean by now.
func (l *diskLog) tidy(ctx context.Context) error {
	l.mu.Lock()
	todo := l.lo < l.hi
	l.mu.Unlock()
	if !todo {
		return nil
	}
	if err := l.take(ctx); err != nil {
		return err
	}
	defer func() { <-l.place.token }()
	return l.write(ctx)
}

// write writes what is not yet on the medium, and makes it durable if anybody
// waits for that. The caller has the token of the place.
func (l *diskLog) write(ctx context.Context) error {
	if l.place.owner != l {
		return fmt.Errorf("%w: the log device is the log of another mirror by now", block.ErrBusy)
	}
	l.mu.Lock()
	lo, hi, marks := l.lo, l.hi, l.marks
	flush := marks > l.lasting
	data := bytes.Clone(l.image[lo:hi])
	l.lo, l.hi = 0, 0
	l.mu.Unlock()
	err := l.dev.Do(ctx, block.Request{Op: block.OpWrite, Off: lo, Len: hi - lo, Data: block.Bytes(data)})
	if err == nil && flush {
		if err = l.dev.Do(ctx, block.Request{Op: block.OpFlush}); err != nil && ctx.Err() == nil {
			l.flushFailed.Store(true)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.touch(lo, hi)
		if ctx.Err() == nil {
			l.failed.Store(true)
		}
		return err
	}
	l.lasting = max(l.lasting, marks)
	return nil
}

// char is the letter of the log in the status.
func (l *diskLog) char() byte {
	switch {
	case l.flushFailed.Load():
		return 'F'
	case l.failed.Load():
		return 'D'
	}
	return 'A'
}
