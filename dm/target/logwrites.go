package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "log-writes", Features: dm.TakesFlush,
		Usage: "<device> <log device>", New: newLogWrites,
	})
}

// maxUnflushed bounds the data that waits for a flush, in bytes: a client that
// never flushes ends the log, not the process.
const maxUnflushed = 1 << 30

// logWrites passes everything to its device, and writes to a log what changed
// it: in the order in which the changes were complete, and only once a flush,
// or FUA, has made them durable. The log says what a device may hold after a
// crash at any of its entries.
//
// It takes no contexts: the log is to hold what the device does, and never
// plaintext that the device does not. When the log is full or fails, logging
// is over, and the device goes on. A table that has changed nothing leaves the
// log as it was; the first change begins it anew.
type logWrites struct {
	linear
	logName string
	w       logWriter

	mu        sync.Mutex // guards what follows
	unflushed []logEntry // complete, not known to be durable
	held      int64      // bytes of data in unflushed
	ready     []logEntry // to be written to the log next
	ended     bool       // logging is over
}

func newLogWrites(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	// The kernel passes sectors of the table on, not of the row.
	l := &logWrites{linear: linear{name: a.String("device"), start: b.Start(), length: b.Len()}, logName: a.String("log device")}
	if err := a.End(); err != nil {
		return nil, err
	}
	var err error
	if l.Device, err = b.OpenSpan(l.name, l.start, l.length); err != nil {
		return nil, err
	}
	log, err := b.Open(l.logName)
	if err != nil {
		return nil, err
	}
	sector, i := int64(l.Device.Info().LogicalBlock), log.Info()
	switch {
	case len(dm.Distinct([]block.Span{{Dev: l.Device}, {Dev: log}})) == 1:
		return nil, fmt.Errorf("log device %q is the device itself, whose data the log would overwrite", l.logName)
	case int64(i.LogicalBlock) > sector:
		return nil, fmt.Errorf("log device %q has blocks of %d bytes, device %q of %d: those of the log may not be larger",
			l.logName, i.LogicalBlock, l.name, sector)
	case i.Size < 2*sector:
		return nil, fmt.Errorf("log device %q is too small for one entry", l.logName)
	}
	l.w.init(log, sector)
	return l, nil
}

// Do performs r, and returns when what it made durable is in the log too.
func (l *logWrites) Do(ctx context.Context, r block.Request) error {
	switch {
	case r.Op == block.OpRead:
		return l.linear.Do(ctx, r)
	case r.NoWait() && (r.Op == block.OpFlush || r.Flags&block.FUA != 0):
		return block.ErrWouldBlock // the log may have to wait
	case r.Op == block.OpFlush:
		return l.flush(ctx, r)
	}
	if l.isOver() {
		return l.pass(ctx, r)
	}
	e := logEntry{sector: (l.start + r.Off) / l.w.sector, sectors: r.Len / l.w.sector}
	switch {
	case r.Op == block.OpDiscard:
		e.flags = logDiscard
	default:
		// The data may change as soon as it is handed on, or at any time: what
		// is logged is a copy, and if need be the copy is what is written.
		e.data = make([]byte, r.Len)
		r.Data.CopyTo(e.data)
		if r.Flags&block.Shared != 0 {
			r.Data, r.Flags = block.Bytes(e.data), r.Flags&^(block.Shared|block.Scratch)
		}
		if r.Flags&block.FUA != 0 {
			e.flags = logFUA
		}
	}
	if err := l.pass(ctx, r); err != nil {
		return err
	}
	if e.flags&logFUA != 0 {
		l.add(e)
		l.writeLog(ctx)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	l.unflushed = append(l.unflushed, e)
	if l.held += int64(len(e.data)); l.held > maxUnflushed {
		l.end()
	}
	return nil
}

// Explain says where changes are logged.
func (l *logWrites) Explain(int64) string {
	if l.isOver() {
		return fmt.Sprintf("changes are no longer logged to %q", l.logName)
	}
	return fmt.Sprintf("changes are logged to %q", l.logName)
}

// pass performs a change. A discard is one in the log even where the device
// knows none.
func (l *logWrites) pass(ctx context.Context, r block.Request) error {
	switch i := l.Device.Info(); {
	case r.Op == block.OpDiscard && i.Discard == block.None:
		return nil
	case r.Flags&block.FUA != 0 && i.FUA == block.None:
		return block.EmulateFUA(ctx, &l.linear, r)
	}
	return l.linear.Do(ctx, r)
}

// flush makes durable, and logs, what was complete before. If it fails, the
// next one does.
func (l *logWrites) flush(ctx context.Context, r block.Request) error {
	l.mu.Lock()
	covered, held := l.unflushed, l.held
	l.unflushed, l.held = nil, 0
	l.mu.Unlock()
	if err := l.Device.Do(ctx, r); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.ended {
			l.unflushed, l.held = append(covered, l.unflushed...), l.held+held
		}
		return err
	}
	l.add(append(covered, logEntry{flags: logFlush})...)
	l.writeLog(ctx)
	if err := l.w.dev.Do(ctx, r); err != nil {
		l.giveUp()
	}
	return nil
}

// add appends to what is to be written to the log.
func (l *logWrites) add(e ...logEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ready = append(l.ready, e...)
	}
}

// end stops logging; l.mu is held.
func (l *logWrites) end() {
	l.ended = true
	l.unflushed, l.held, l.ready = nil, 0, nil
}

// writeLog writes all that is ready, in order. Whoever comes while another
// writes waits until that one has written everything. A log that fails is no
// failure of the request.
func (l *logWrites) writeLog(ctx context.Context) {
	ctx = context.WithoutCancel(ctx) // half an entry is the end of the log
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	for wrote := false; ; wrote = true {
		l.mu.Lock()
		batch := l.ready
		l.ready = nil
		l.mu.Unlock()
		if len(batch) == 0 {
			if wrote && l.w.writeSuper(ctx) != nil {
				l.giveUp()
			}
			return
		}
		for _, e := range batch {
			err := l.w.write(ctx, e)
			if err == errLogFull {
				err = errors.Join(err, l.w.writeSuper(ctx)) // what is there counts
			}
			if err != nil {
				l.giveUp()
				return
			}
		}
	}
}

func (l *logWrites) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

func (l *logWrites) giveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

// Message is "mark" and a word, which goes into the log.
func (l *logWrites) Message(ctx context.Context, words []string) (string, error) {
	switch {
	case !strings.EqualFold(words[0], "mark"):
		return "", fmt.Errorf("no message %q (there is: mark)", words[0])
	case len(words) != 2:
		return "", fmt.Errorf("mark takes one word, not %d", len(words)-1)
	}
	l.add(l.w.mark(words[1]))
	l.writeLog(ctx)
	if l.isOver() {
		return "", errors.New("mark: logging is over: the log is full, or failed")
	}
	return "", nil
}

// Close ends the log with what no flush has covered, and a mark.
func (l *logWrites) Close() error {
	l.mu.Lock()
	if used := l.w.used() || len(l.unflushed) > 0; used && !l.ended {
		l.ready = append(append(l.ready, l.unflushed...), l.w.mark("dm-log-writes-end"))
	}
	l.unflushed, l.held = nil, 0
	last := len(l.ready) > 0
	l.mu.Unlock()
	if !last {
		return nil
	}
	l.writeLog(context.Background())
	return l.w.dev.Do(context.Background(), block.Request{Op: block.OpFlush})
}

func (l *logWrites) Info() block.Info {
	i := l.Device.Info()
	i.Discard, i.FUA = max(i.Discard, block.Emulated), max(i.FUA, block.Emulated)
	i.Zeroes = block.None // zeroes are logged as the data that they are
	i.NeverBlocks = false
	return i
}

func (l *logWrites) Under() []block.Span {
	return append(l.linear.Under(), block.Span{Dev: l.w.dev, Len: l.w.dev.Info().Size})
}

// Status is the number of entries and the last sector of the log that they
// take.
func (l *logWrites) Status(k dm.StatusKind) string {
	if k == dm.StatusTable {
		return dm.QuoteWord(l.name) + " " + dm.QuoteWord(l.logName)
	}
	text := fmt.Sprintf("%d %d", l.w.entries.Load(), l.w.next.Load()>>9-1)
	if l.isOver() {
		text += " logging_disabled"
	}
	return text
}
