package target

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "mirror", Features: dm.PassesCrypto | dm.TakesFlush,
		Usage: "core <1 or 2> <region sectors> [sync | nosync] | disk <2 or 3> <log device> <region sectors> [sync | nosync], " +
			"<number of legs> (<device> <start sector>)... [<number of words> [handle_errors] [keep_log]]",
		New: newMirror,
	})
}

// maxLegs is what the kernel takes: one to copy from, and the 8 destinations
// that its copying service knows.
const maxLegs = 9

// maxMirrorRegions bounds the memory of one row: two bits a region, 64 MiB.
const maxMirrorRegions = 1 << 28

// mirror keeps the same bytes on several legs. A write goes to every leg that
// has the rest of its region, with the key and the data unit number it came with, so
// that all legs hold the same ciphertext whoever encrypts it on each. What a leg
// lacks is copied from another as it lies there, without a key.
//
// Which legs have a region is known exactly while the table lives (regions); a
// disk log remembers from one table to the next which regions may differ.
type mirror struct {
	legs   []*mirrorLeg
	length int64
	g      regions
	log    *diskLog // nil: core
	args   string   // of the log, as the table has them
	start  startAs

	handleErrors, keepLog, readOnly bool
	raise                           func(text string)

	loaded  atomic.Bool   // what the log says is in g
	loading chan struct{} // a token: who loads it

	life   sync.Mutex // guards what follows
	cancel context.CancelFunc
	ended  chan struct{} // closed by the background when it ends; nil: there is none
	closed bool

	kick chan struct{} // wakes the background
	redo redo

	// The background's, whichever there is.
	told  bool      // that all regions are in sync, once
	until time.Time // when the next chunk may be copied
}

// startAs is what the log is told of regions of which it knows nothing.
type startAs uint8

const (
	byLog   startAs = iota // as the log says; a new one says that none is in sync
	allSync                // "nosync": all are in sync, whatever the log says
	noSync                 // "sync": none is
)

// A mirrorLeg is one copy of the row.
type mirrorLeg struct {
	linear
	errors atomic.Uint32 // legError
}

// legError says in what a leg has failed since the table was loaded.
type legError uint32

const (
	readFailed legError = 1 << iota
	syncFailed
	writeFailed
	flushFailed
)

// char is the letter of the worst of them in the status.
func (e legError) char() byte {
	for _, c := range []struct {
		is   legError
		char byte
	}{{flushFailed, 'F'}, {writeFailed, 'D'}, {syncFailed, 'S'}, {readFailed, 'R'}} {
		if e&c.is != 0 {
			return c.char
		}
	}
	return 'A'
}

func (e legError) String() string {
	return map[legError]string{readFailed: "read", syncFailed: "copy", writeFailed: "write", flushFailed: "flush"}[e]
}

func newMirror(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	m := &mirror{length: b.Len(), readOnly: b.ReadOnly(), raise: b.Raise, loading: make(chan struct{}, 1), kick: make(chan struct{}, 1)}
	logName := m.logArgs(a)
	const what = "number of legs"
	n := a.Int(what, 2, maxLegs)
	for i := 0; i < n && a.Err() == nil; i++ {
		m.legs = append(m.legs, &mirrorLeg{linear: linear{name: a.String("device"), start: a.Sectors("start"), length: m.length}})
	}
	m.features(a)
	if err := a.End(); err != nil {
		return nil, err
	}
	for _, l := range m.legs {
		var err error
		if l.Device, err = b.OpenSpan(l.name, l.start, l.length); err != nil {
			return nil, err
		}
		if n := int64(l.Device.Info().LogicalBlock); m.g.size%n != 0 {
			return nil, fmt.Errorf("regions of %d sectors are not whole blocks of device %q, which has %d bytes in one", m.g.size>>9, l.name, n)
		}
	}
	m.g.init((m.length+m.g.size-1)/m.g.size, n, m.start == allSync)
	if logName == "" {
		m.loaded.Store(true)
		return m, nil
	}
	dev, err := b.Open(logName)
	if err != nil {
		return nil, err
	}
	m.log, err = newDiskLog(dev, logName, m.g.n, m.legs)
	return m, err
}

// logArgs reads the arguments up to the legs and returns the name of the log
// device, if there is one.
func (m *mirror) logArgs(a *dm.Args) (name string) {
	kind := a.String("log type")
	least := map[string]int{"core": 1, "disk": 2}[kind]
	if a.Err() == nil && least == 0 {
		a.Fail("log type", fmt.Errorf("%q is not core or disk", kind))
	}
	n := a.Int("number of log arguments", least, least+1)
	words := []string{kind, fmt.Sprint(n)}
	if kind == "disk" {
		name = a.String("log device")
		words = append(words, dm.QuoteWord(name))
	}
	const what = "region size, in sectors"
	size := upTo32Bits(a, what, 2)
	switch {
	case a.Err() != nil:
	case size&(size-1) != 0:
		a.Fail(what, fmt.Errorf("%d is not a power of two", size))
	case int64(size) > m.length>>9:
		a.Fail(what, fmt.Errorf("%d is more than the %d of the row", size, m.length>>9))
	case m.length>>9/int64(size) >= maxMirrorRegions:
		a.Fail(what, fmt.Errorf("%d makes %d regions of the row, more than %d: larger ones will do", size, m.length>>9/int64(size), maxMirrorRegions))
	}
	m.g.size = int64(size) << 9
	words = append(words, fmt.Sprint(size))
	if n > least {
		w := a.String("sync or nosync")
		switch w {
		case "sync":
			m.start = noSync
		case "nosync":
			m.start = allSync
		default:
			if a.Err() == nil {
				a.Fail("sync or nosync", fmt.Errorf("%q is neither", w))
			}
		}
		words = append(words, w)
	}
	m.args = strings.Join(words, " ")
	return name
}

func (m *mirror) features(a *dm.Args) {
	a.Options(math.MaxInt32, func(name, value string) error {
		switch {
		case name == "handle_errors" && value == "":
			m.handleErrors = true
		case name == "keep_log" && value == "":
			m.keepLog = true
		default:
			return fmt.Errorf("%q is not handle_errors or keep_log", name)
		}
		return nil
	})
	if a.Err() == nil && m.keepLog && !m.handleErrors {
		a.Fail("option", fmt.Errorf("keep_log needs handle_errors"))
	}
}

// Chunk is the size of a region in bytes: neighbours may be on different legs.
func (m *mirror) Chunk() int64 { return m.g.size }

// Map tells which leg a read of one region goes to, and one of those that a
// write does.
func (m *mirror) Map(r *block.Request) (block.Device, error) {
	l := m.legs[m.prefer(m.g.common(m.g.span(r.Off, r.Len)))]
	return l.Map(r)
}

// Explain says how the region of the byte at off is.
func (m *mirror) Explain(off int64) string {
	i := off / m.g.size
	have := m.g.common(i, i)
	if have == m.g.all {
		return fmt.Sprintf("region %d of %d, of %d sectors, is in sync: reads are for leg %d, writes for all %d",
			i+1, m.g.n, m.g.size>>9, m.prefer(have)+1, len(m.legs))
	}
	var legs []string
	for l := range have.each() {
		legs = append(legs, fmt.Sprint(l+1))
	}
	return fmt.Sprintf("region %d of %d, of %d sectors, is not in sync: reads and writes are for leg %s of %d",
		i+1, m.g.n, m.g.size>>9, strings.Join(legs, ", "), len(m.legs))
}

// Info is what all legs have in common. A write may have to wait for a copy, or
// for the log.
func (m *mirror) Info() block.Info {
	sum := m.legs[0].Device.Info()
	for _, l := range m.legs[1:] {
		sum = together(sum, l.Device.Info())
	}
	sum.NeverBlocks, sum.WritesBlock = false, true
	return sum
}

// Extents are those of the legs that reads go to.
func (m *mirror) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	if m.g.complete.Load() {
		return m.legs[m.prefer(m.g.all)].Extents(ctx, off, n)
	}
	return inPlaces(ctx, off, n, func(off int64) (block.Device, int64, int64) {
		i := off / m.g.size
		l := m.legs[m.prefer(m.g.common(i, i))]
		return l.Device, l.start + off, (i+1)*m.g.size - off
	})
}

// Under is the legs. The log is not among them, as in the kernel: it carries no
// data, and what its device serves is nobody's concern.
func (m *mirror) Under() []block.Span {
	var spans []block.Span
	for _, l := range m.legs {
		spans = append(spans, l.Under()...)
	}
	return spans
}

// Status is the legs, how many regions are in sync, a letter for each leg, and
// the log: A, or what it has failed in, D or F.
func (m *mirror) Status(k dm.StatusKind) string {
	words := []string{fmt.Sprint(len(m.legs))}
	if k == dm.StatusTable {
		words[0] = m.args + " " + words[0]
		for _, l := range m.legs {
			words = append(words, l.linear.Status(k))
		}
		switch {
		case m.keepLog:
			words = append(words, "2 handle_errors keep_log")
		case m.handleErrors:
			words = append(words, "1 handle_errors")
		}
		return strings.Join(words, " ")
	}
	var letters []byte
	for _, l := range m.legs {
		words = append(words, dm.QuoteWord(l.name))
		letters = append(letters, legError(l.errors.Load()).char())
	}
	words = append(words, fmt.Sprintf("%d/%d 1 %s", m.g.inSync(), m.g.n, letters))
	if m.log == nil {
		words = append(words, "1 core")
	} else {
		words = append(words, fmt.Sprintf("3 disk %s %c", dm.QuoteWord(m.log.name), m.log.char()))
	}
	return strings.Join(words, " ")
}

// prefer returns the leg of those in have to which reads go: the first that has
// not failed in anything, or else the first.
func (m *mirror) prefer(have legSet) int {
	for l := range have.each() {
		if m.legs[l].errors.Load() == 0 {
			return l
		}
	}
	return have.first()
}

// fail records that a leg has failed in something, and tells of the first time
// if errors are to be handled.
func (m *mirror) fail(leg int, in legError, err error) {
	l := m.legs[leg]
	if was := l.errors.Or(uint32(in)); legError(was)&in == 0 && m.handleErrors {
		m.raise(fmt.Sprintf("leg %d (%s): %v failed: %v", leg+1, l.name, in, err))
	}
}

// A legSet is a set of legs, bit 0 for the first.
type legSet uint16

func (s legSet) has(leg int) bool { return s>>leg&1 != 0 }
func (s legSet) first() int       { return bits.TrailingZeros16(uint16(s)) }

func (s legSet) each() iter.Seq[int] {
	return func(yield func(int) bool) {
		for ; s != 0; s &= s - 1 {
			if !yield(s.first()) {
				return
			}
		}
	}
}
