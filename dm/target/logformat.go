package target

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"keyway/block"
)

// The log of log-writes as Linux has it on disk, little-endian throughout.
// Sectors are as large as the logical blocks of the device whose writes are
// logged. Sector 0 holds the super block: magic, version, number of entries
// (64 bits each), bytes in a sector (32 bits). Each entry is a sector with
// the first sector changed, their number, flags and the length of the text
// (64 bits each) and the text of a mark; then come the sectors written, none
// for a discard.
const (
	logMagic   = 0x6a736677736872
	logVersion = 1

	logFlush   = 1 << 0
	logFUA     = 1 << 1
	logDiscard = 1 << 2
	logMark    = 1 << 3

	logEntrySize = 32
)

type logEntry struct {
	sector, sectors int64
	flags           uint64
	text            string // of a mark
	data            []byte
}

var errLogFull = errors.New("the log is full")

// A logWriter appends entries to a log.
type logWriter struct {
	dev    block.Device
	sector int64 // bytes

	mu      sync.Mutex // held by who writes
	entries atomic.Uint64
	next    atomic.Int64 // where the next entry goes, in bytes
}

func (w *logWriter) init(dev block.Device, sector int64) {
	w.dev, w.sector = dev, sector
	w.next.Store(sector)
}

// used reports whether there is an entry.
func (w *logWriter) used() bool { return w.entries.Load() > 0 }

// mark makes an entry of text, cut to what fits the sector with a zero after
// it.
func (w *logWriter) mark(text string) logEntry {
	return logEntry{flags: logMark, text: text[:min(int64(len(text)), w.sector-logEntrySize-1)]}
}

// write appends an entry. The super block does not count it yet.
func (w *logWriter) write(ctx context.Context, e logEntry) error {
	at := w.next.Load()
	end := at + w.sector + int64(len(e.data))
	if end >= w.dev.Info().Size { // the kernel leaves the last sector free too
		return errLogFull
	}
	head := make([]byte, w.sector)
	for i, n := range []uint64{uint64(e.sector), uint64(e.sectors), e.flags, uint64(len(e.text))} {
		binary.LittleEndian.PutUint64(head[8*i:], n)
	}
	copy(head[logEntrySize:], e.text)
	r := block.Request{Op: block.OpWrite, Off: at, Len: end - at, Data: block.Vec([][]byte{head, e.data})}
	if err := w.dev.Do(ctx, r); err != nil {
		return err
	}
	w.next.Store(end)
	w.entries.Add(1)
	return nil
}

func (w *logWriter) writeSuper(ctx context.Context) error {
	super := make([]byte, w.sector)
	binary.LittleEndian.PutUint64(super[0:], logMagic)
	binary.LittleEndian.PutUint64(super[8:], logVersion)
	binary.LittleEndian.PutUint64(super[16:], w.entries.Load())
	binary.LittleEndian.PutUint32(super[24:], uint32(w.sector))
	return w.dev.Do(ctx, block.Request{Op: block.OpWrite, Len: w.sector, Data: block.Bytes(super)})
}
