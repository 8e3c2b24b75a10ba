package f2fs

import (
	"bytes"
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

// A Run is a run of blocks of a file, of BlockSize bytes.
type Run = fstype.Run

// A mapper goes through the tree of nodes of a file and yields what covers
// [next, end).
type mapper struct {
	i         *Inode
	next, end uint64
	yield     func(Run, error) bool
	held      Run // not yielded yet
	stopped   bool
	seen      map[uint32]bool // nodes
}

// Map yields the runs of blocks first to first+n-1 of the file, in order and without
// gaps. An error is the last thing that it yields. Files that are Inline have no blocks.
func (i *Inode) Map(first, n uint64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		m := mapper{i: i, next: first, end: first + n, yield: yield}
		err := m.run(n)
		m.flush()
		if err != nil && !m.stopped {
			yield(Run{}, i.wrap(err))
		}
	}
}

func (m *mapper) run(n uint64) error {
	i := m.i
	if t := i.Type(); t != Regular && t != Directory && t != Symlink {
		return fmt.Errorf("a %v has no data: %w", t, ErrUnsupported)
	}
	if i.Inline() {
		return fmt.Errorf("the data is in the inode: %w", ErrUnsupported)
	}
	if m.end < m.next {
		return damaged("blocks %d and %d more do not exist", m.next, n)
	}
	if err := m.addrs(i.addrArea(), 0); err != nil || m.done() {
		return err
	}
	first := uint64(i.addrs())
	for k, level := range []int{0, 0, 1, 1, 2} {
		span := uint64(nodeAddrs)
		for range level {
			span *= nodeAddrs
		}
		if err := m.node(le32(i.raw, inodeNodes+4*k), level, first, span); err != nil || m.done() {
			return err
		}
		first += span
	}
	m.put(m.next, m.end-m.next, 0)
	return nil
}

func (m *mapper) done() bool { return m.stopped || m.next >= m.end }

// node follows the number of a node that maps span blocks from first on: of one with
// addresses at level 0, else of one with numbers of nodes.
func (m *mapper) node(nid uint32, level int, first, span uint64) error {
	if first+span <= m.next || first >= m.end {
		return nil
	}
	if nid == 0 {
		m.put(m.next, min(first+span, m.end)-m.next, 0)
		return nil
	}
	// A node that is there many times makes a file of terabytes of a small image.
	if m.seen[nid] {
		return damaged("node %d is in the tree twice", nid)
	}
	if m.seen == nil {
		m.seen = map[uint32]bool{}
	}
	m.seen[nid] = true
	b, err := m.i.fs.node(nid, m.i.Number)
	if err != nil {
		return err
	}
	if nid == m.i.Number {
		return damaged("node %d is the inode itself", nid)
	}
	if level == 0 {
		return m.addrs(b[:4*nodeAddrs], first)
	}
	span /= nodeAddrs
	for k := (m.next - first) / span; k < nodeAddrs && !m.done(); k++ {
		if err := m.node(le32(b, int(4*k)), level-1, first+k*span, span); err != nil {
			return err
		}
	}
	return nil
}

// addrs goes through addresses, which are those of blocks from first on.
func (m *mapper) addrs(b []byte, first uint64) error {
	for !m.done() && m.next-first < uint64(len(b)/4) {
		addr := le32(b, int(4*(m.next-first)))
		switch {
		case addr == compressAddr:
			return fmt.Errorf("block %d is compressed: %w", m.next, ErrUnsupported)
		case addr != 0 && addr != newAddr && !m.i.fs.inMain(addr):
			return damaged("block %d: %d is not in the main area", m.next, addr)
		}
		m.put(m.next, 1, addr)
	}
	return nil
}

// Addresses that are none.
const (
	newAddr      = 1<<32 - 1
	compressAddr = 1<<32 - 2
)

func (m *mapper) put(logical, n uint64, addr uint32) {
	if n == 0 {
		return
	}
	r := Run{Logical: logical, Physical: uint64(addr), Blocks: n}
	switch addr {
	case 0:
		r.Kind = Hole
	case newAddr:
		r.Kind, r.Physical = Unwritten, 0
	}
	m.next = logical + n
	h := &m.held
	if h.Blocks > 0 && h.Kind == r.Kind && (r.Kind != Data || h.Physical+h.Blocks == r.Physical) {
		h.Blocks += n
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

// RawSize is the number of bytes that ReadRaw can read: Size, and of files in blocks
// up to the end of the last, since ciphertext ends there.
func (i *Inode) RawSize() int64 {
	if i.Inline() {
		return i.Size
	}
	return (i.Size + BlockSize - 1) &^ (BlockSize - 1)
}

// ReadRaw reads what lies on the medium from byte off of the file on: ciphertext if
// the file is encrypted. Holes and unwritten blocks are zeros, which no cipher made.
// It is an io.ReaderAt of RawSize bytes.
func (i *Inode) ReadRaw(p []byte, off int64) (int, error) { return i.readTo(p, off, i.RawSize()) }

// ReadAt reads a file that is not encrypted, up to Size. It is an io.ReaderAt.
func (i *Inode) ReadAt(p []byte, off int64) (int, error) {
	if i.Encrypted() {
		return 0, i.wrap(fmt.Errorf("contents are %w", ErrEncrypted))
	}
	return i.readTo(p, off, i.Size)
}

func (i *Inode) readTo(p []byte, off, size int64) (n int, err error) {
	if off < 0 {
		return 0, i.wrap(fmt.Errorf("offset %d is negative", off))
	}
	if off >= size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > size-off {
		p, eof = p[:size-off], io.EOF
	}
	if i.inline&inlineDentry != 0 {
		return 0, i.wrap(fmt.Errorf("a directory in its inode has no data: %w", ErrUnsupported))
	}
	if i.Inline() {
		return copy(p, i.inlineArea()[off:]), eof
	}
	if len(p) == 0 {
		return 0, nil
	}
	first, last := uint64(off)>>blockBits, uint64(off+int64(len(p))-1)>>blockBits
	for r, err := range i.Map(first, last-first+1) {
		if err != nil {
			return n, err
		}
		skip := off + int64(n) - int64(r.Logical)<<blockBits
		part := p[n:]
		part = part[:min(int64(len(part)), int64(r.Blocks)<<blockBits-skip)]
		if r.Kind != Data {
			clear(part)
		} else if err := i.fs.read(part, int64(r.Physical)<<blockBits+skip); err != nil {
			return n, i.wrap(err)
		}
		n += len(part)
	}
	return n, eof
}

// Target returns the target of a symbolic link as it is on the medium: of an
// encrypted one two bytes of length and ciphertext.
func (i *Inode) Target() ([]byte, error) {
	if i.Type() != Symlink {
		return nil, i.wrap(fmt.Errorf("is a %v, not a symbolic link", i.Type()))
	}
	b := make([]byte, i.Size) // at most a block
	if n, err := i.readTo(b, 0, i.Size); n < len(b) {
		return nil, err
	}
	if !i.Encrypted() && bytes.IndexByte(b, 0) >= 0 {
		return nil, i.wrap(damaged("a target with a zero byte"))
	}
	return b, nil
}
