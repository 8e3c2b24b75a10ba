package trace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/plural"
	"keyway/keyslot"
)

const (
	// blockSize is how much is written at once, in bytes: a thousand requests share a
	// system call.
	blockSize = 64 << 10

	// blocks is how many there are. Whoever fills the last one waits for the file.
	blocks = 8

	// flushEvery bounds what a killed process takes along.
	flushEvery = time.Second

	// maxLineOut is what an event takes at most: six numbers, a DUN, the words.
	maxLineOut = 256
)

// A Writer writes a trace. What it is told is in the file a second later, in full: when
// the file is slower than the requests, they wait for it. After an error of the file
// it counts what it loses.
type Writer struct {
	out   io.WriteCloser
	name  string
	begin time.Time
	fail  func(error)
	made  bool // by Create

	full chan piece
	free chan []byte
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	now     piece
	events  int
	engines map[Engine]int64    // by name and slots
	keys    map[uint64]struct{} // that the file knows
	closed  bool

	failing sync.Mutex // guards what follows
	err     error
	lost    int
}

// A piece is a run of whole lines.
type piece struct {
	text   []byte
	events int
}

// Create makes a trace file that only its owner can read: names of keys and the places
// of data are in it. It does not write over a file that is there. fail is told of the
// first error of the file, once, and may be nil.
func Create(path string, fail func(error)) (*Writer, error) {
	made := true
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if i, stat := os.Stat(path); stat == nil && !i.Mode().IsRegular() && !i.IsDir() {
			f, err = os.OpenFile(path, os.O_WRONLY, 0) // a pipe
			made = false
		}
	}
	if err != nil {
		return nil, err
	}
	w := NewWriter(f, path, fail)
	w.made = made
	return w, nil
}

// NewWriter is Create for a file that is open, which the writer closes. name is for
// errors.
func NewWriter(out io.WriteCloser, name string, fail func(error)) *Writer {
	w := &Writer{
		out: out, name: name, begin: time.Now(), fail: fail, keys: map[uint64]struct{}{}, engines: map[Engine]int64{},
		full: make(chan piece, blocks), free: make(chan []byte, blocks), stop: make(chan struct{}),
	}
	for range blocks {
		w.free <- make([]byte, 0, blockSize+maxLineOut)
	}
	w.now.text = <-w.free
	w.add(0, fmt.Appendf(nil, "%s%d\nbegan %s\n%s", magic, version, w.begin.UTC().Format(time.RFC3339Nano), legend))
	w.hand()
	w.done.Go(w.write)
	w.done.Go(w.tick)
	return w
}

// Engine returns the tracer for a manager of so many keyslots, called name: the same
// engine of the trace for the same.
func (w *Writer) Engine(name string, slots int) keyslot.Tracer {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := Engine{Slots: slots, Name: name}
	n, known := w.engines[e]
	if !known && !w.closed {
		n = int64(len(w.engines)) + 1
		w.engines[e] = n
		w.add(0, fmt.Appendf(nil, "engine %d %d %s\n", n, slots, quote(name)))
	}
	return &tracer{w, n}
}

// Close writes what is left and closes the file. Its error says how much was lost.
func (w *Writer) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	w.add(0, fmt.Appendf(nil, "end %d\n", w.events))
	w.hand()
	close(w.full)
	close(w.stop)
	w.mu.Unlock()
	w.done.Wait()
	if err := w.out.Close(); err != nil {
		w.failed(err, 0)
	}
	w.failing.Lock()
	defer w.failing.Unlock()
	if w.err != nil {
		return fmt.Errorf("trace %s: %s lost: %w", w.name, plural.Of(w.lost, "event"), w.err)
	}
	return nil
}

// Discard closes the file and takes it away, if Create has made it.
func (w *Writer) Discard() {
	_ = w.Close()
	if w.made {
		_ = os.Remove(w.name)
	}
}

// Events is how many requests and evictions the writer has been told of.
func (w *Writer) Events() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events
}

// add puts lines into the present piece, which has room for them. Called with mu held.
func (w *Writer) add(events int, text []byte) {
	w.now.text = append(w.now.text, text...)
	w.now.events += events
	w.events += events
	if len(w.now.text) >= blockSize {
		w.hand()
	}
}

// hand gives the present piece to the file and takes the next. Called with mu held: when
// none is free, all who are traced wait.
func (w *Writer) hand() {
	if len(w.now.text) == 0 {
		return
	}
	w.full <- w.now
	w.now = piece{text: <-w.free}
}

// write is the goroutine that has the file.
func (w *Writer) write() {
	for p := range w.full {
		w.failing.Lock()
		bad := w.err != nil
		w.failing.Unlock()
		if bad {
			w.failed(nil, p.events)
		} else if _, err := w.out.Write(p.text); err != nil {
			w.failed(err, p.events)
		}
		w.free <- p.text[:0]
	}
}

// failed counts what is lost, and tells of the first error.
func (w *Writer) failed(err error, events int) {
	w.failing.Lock()
	w.lost += events
	first := w.err == nil
	if first {
		w.err = err
	}
	w.failing.Unlock()
	if first && w.fail != nil {
		w.fail(fmt.Errorf("trace %s: nothing is written to it any more: %w", w.name, err))
	}
}

// tick has what was traced written also when little is.
func (w *Writer) tick() {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-t.C:
		}
		w.mu.Lock()
		if !w.closed {
			w.hand()
		}
		w.mu.Unlock()
	}
}

// A tracer is the writer for one engine.
type tracer struct {
	w      *Writer
	engine int64
}

func (t *tracer) Now() int64 { return int64(time.Since(t.w.begin)) }

// Hot: no allocation, but for a key that is new.
func (t *tracer) Request(r keyslot.Traced) {
	var line [maxLineOut]byte
	b := append(line[:0], r.Op.String()...)
	b = number(b, t.engine)
	b = strconv.AppendUint(append(b, ' '), r.Crypt.Key.ID(), 10)
	b = appendDUN(append(b, ' '), r.Crypt.DUN)
	b = number(number(b, r.Off), r.Len)
	b = number(number(b, r.Start), r.End)
	if r.Failed {
		b = append(b, " failed"...)
	}
	t.w.event(r.Crypt.Key, append(b, '\n'), false)
}

func (t *tracer) Evicted(k *blkcrypto.Key, start, end int64) {
	var line [maxLineOut]byte
	b := number(append(line[:0], "evict"...), t.engine)
	b = strconv.AppendUint(append(b, ' '), k.ID(), 10)
	b = number(number(b, start), end)
	t.w.event(k, append(b, '\n'), true)
}

func (w *Writer) event(k *blkcrypto.Key, line []byte, last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if _, ok := w.keys[k.ID()]; !ok {
		w.keys[k.ID()] = struct{}{}
		c := k.Config()
		w.add(0, fmt.Appendf(nil, "key %d %v %d %s\n", k.ID(), c.Mode, c.DataUnitSize, quote(k.Name())))
	}
	w.add(1, line)
	if last {
		delete(w.keys, k.ID()) // whoever uses it yet introduces it again
	}
}

func number(b []byte, n int64) []byte { return strconv.AppendInt(append(b, ' '), n, 10) }

func appendDUN(b []byte, d blkcrypto.DUN) []byte {
	if d[1]|d[2]|d[3] == 0 {
		return strconv.AppendUint(b, d[0], 10)
	}
	b = append(b, "0x"...)
	for i, begun := len(d)-1, false; i >= 0; i-- {
		for shift := 60; shift >= 0; shift -= 4 {
			digit := d[i] >> shift & 15
			if begun = begun || digit != 0; begun {
				b = append(b, "0123456789abcdef"[digit])
			}
		}
	}
	return b
}

func quote(name string) string {
	if len(name) > MaxName {
		name = name[:MaxName]
	}
	return strconv.QuoteToASCII(name)
}
