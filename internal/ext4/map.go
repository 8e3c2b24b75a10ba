package ext4

import (
	"fmt"
	"io"
	"iter"

	"keyway/internal/fstype"
)

// A Kind tells what a run of blocks of a file is.
type Kind = fstype.Kind

// The kinds of runs.
const (
	Data      = fstype.Data
	Hole      = fstype.Hole
	Unwritten = fstype.Unwritten
)

// A Run is a run of blocks of a file, in blocks of the file system.
type Run = fstype.Run

// A mapper goes through the map of a file and yields what covers [next, end): runs as
// long as they can be, or one error.
type mapper struct {
	i         *Inode
	next, end uint64
	anywhere  bool // even where metadata should be
	yield     func(Run, error) bool
	held      Run // not yielded yet
	stopped   bool
	trees     uint64 // blocks of pointers read
}

// Map yields the runs of blocks first to first+n-1 of the file, in order and without
// gaps. Blocks behind the end of the file are holes if nothing was allocated there.
// An error is the last thing that it yields. Files that are Inline have no blocks.
func (i *Inode) Map(first, n uint64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		i.runs(first, n)(func(r Run, err error) bool { return yield(r, i.wrap(err)) })
	}
}

// wrap says which inode an error is about. The end of a file is none.
func (i *Inode) wrap(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return fmt.Errorf("ext4: inode %d: %w", i.Number, err)
}

func (i *Inode) runs(first, n uint64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		m := mapper{i: i, next: first, end: first + n, yield: yield}
		if m.end < first {
			m.fail(damaged("blocks %d and %d more do not exist", first, n))
			return
		}
		m.run()
	}
}

func (m *mapper) run() {
	i := m.i
	if t := i.Type(); t != Regular && t != Directory && t != Symlink {
		m.fail(fmt.Errorf("a %v has no data: %w", t, ErrUnsupported))
		return
	}
	if i.Inline() {
		m.fail(fmt.Errorf("the data is in the inode: %w", ErrUnsupported))
		return
	}
	if m.next == m.end {
		return
	}
	var err error
	if i.Flags&flagExtents != 0 {
		err = m.extents()
	} else {
		err = m.pointers()
	}
	if err != nil {
		m.fail(err)
		return
	}
	m.hole(m.end)
	m.flush()
}

func (m *mapper) fail(err error) {
	m.flush()
	if !m.stopped {
		m.stopped = true
		m.yield(Run{}, err)
	}
}

// done reports whether nothing more is asked for.
func (m *mapper) done() bool { return m.stopped || m.next >= m.end }

// add takes a run that begins at or after next, or reaches over it; what is between
// is a hole.
func (m *mapper) add(r Run) {
	if r.Logical+r.Blocks <= m.next || r.Logical >= m.end || m.stopped {
		return
	}
	m.hole(r.Logical)
	if skip := m.next - r.Logical; r.Logical < m.next {
		r.Logical, r.Physical, r.Blocks = m.next, r.Physical+skip, r.Blocks-skip
	}
	r.Blocks = min(r.Blocks, m.end-r.Logical)
	m.put(r)
}

// hole covers what lies before a block.
func (m *mapper) hole(before uint64) {
	if m.next < min(before, m.end) {
		m.put(Run{Logical: m.next, Blocks: min(before, m.end) - m.next, Kind: Hole})
	}
}

func (m *mapper) put(r Run) {
	h := &m.held
	m.next = r.Logical + r.Blocks
	if h.Blocks > 0 && h.Kind == r.Kind && (r.Kind == Hole || h.Physical+h.Blocks == r.Physical) {
		h.Blocks += r.Blocks
		return
	}
	m.flush()
	m.held = r
}

func (m *mapper) flush() {
	if m.held.Blocks > 0 && !m.stopped {
		m.stopped = !m.yield(m.held, nil)
	}
	m.held = Run{}
}

// check is outside, unless the file is the file system's own.
func (m *mapper) check(first, n uint64) error {
	if !m.i.fs.valid(first, n) {
		return damaged("blocks %d to %d are not of the file system", first, first+n-1)
	}
	if m.anywhere {
		return nil
	}
	return m.i.fs.outside(first, n)
}

// RawSize is the number of bytes that ReadRaw can read: Size, and of files in blocks
// up to the end of the last, since ciphertext ends there.
func (i *Inode) RawSize() int64 {
	if i.Inline() {
		return i.Size
	}
	mask := int64(i.fs.blockSize) - 1
	return (i.Size + mask) &^ mask
}

// ReadRaw reads what lies on the medium from byte off of the file on: ciphertext if
// the file is encrypted. Holes and unwritten blocks are zeros, which no cipher made:
// Map tells where they are. It is an io.ReaderAt of RawSize bytes.
func (i *Inode) ReadRaw(p []byte, off int64) (int, error) {
	n, err := i.readTo(p, off, i.RawSize())
	return n, i.wrap(err)
}

// ReadAt reads a file that is not encrypted, up to Size. It is an io.ReaderAt.
func (i *Inode) ReadAt(p []byte, off int64) (int, error) {
	if i.Encrypted() {
		return 0, i.wrap(fmt.Errorf("contents are %w", ErrEncrypted))
	}
	n, err := i.readTo(p, off, i.Size)
	return n, i.wrap(err)
}

func (i *Inode) readTo(p []byte, off, size int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("offset %d is negative", off)
	}
	if off >= size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > size-off {
		p, eof = p[:size-off], io.EOF
	}
	if i.Inline() {
		b, err := i.inlineData()
		if err != nil {
			return 0, err
		}
		clear(p[copy(p, b[min(off, int64(len(b))):]):])
		return len(p), eof
	}
	f := i.fs
	first, last := uint64(off)>>f.blockBits, uint64(off+int64(len(p))-1)>>f.blockBits
	if len(p) == 0 {
		return 0, nil
	}
	for r, err := range i.runs(first, last-first+1) {
		if err != nil {
			return n, err
		}
		skip := off + int64(n) - int64(r.Logical)<<f.blockBits
		part := p[n:]
		part = part[:min(int64(len(part)), int64(r.Blocks)<<f.blockBits-skip)]
		if r.Kind != Data {
			clear(part)
		} else if err := f.read(part, int64(r.Physical)<<f.blockBits+skip); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, eof
}
