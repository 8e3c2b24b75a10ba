package ext4

import "fmt"

const (
	extentMagic  = 0xf30a
	extentHeader = 12 // bytes, as is every entry
	maxDepth     = 5
	// maxExtent is the longest extent; a length above it is that of an unwritten one.
	maxExtent = 1 << 15
	// noLimit is the end of what a tree may map: block 2³²-1 itself does not exist.
	noLimit = 1<<32 - 1
)

// extents walks the extent tree. A node holds what its parent says: it begins with
// the block that the parent names and ends before that of the next, so no node can
// be met twice.
func (m *mapper) extents() error {
	root := m.i.data[:]
	depth := int(le16(root, 6))
	if depth > maxDepth {
		return damaged("extent tree: depth %d, more than %d", depth, maxDepth)
	}
	return m.node(root, depth, true, 0, noLimit, "root")
}

// node walks a node of some depth, which maps blocks from lo on and before hi; where
// names it.
func (m *mapper) node(b []byte, depth int, root bool, lo, hi uint64, where string) error {
	n, err := m.checkNode(b, depth, root, lo, hi)
	if err != nil {
		return fmt.Errorf("extent tree: %s: %w", where, err)
	}
	for k := range n {
		e := b[extentHeader*(k+1):][:extentHeader]
		first := uint64(le32(e, 0))
		if depth == 0 {
			r := extent(e)
			if err := m.check(r.Physical, r.Blocks); err != nil {
				return fmt.Errorf("extent tree: %s: extent of block %d: %w", where, first, err)
			}
			if m.add(r); m.done() {
				return nil
			}
			continue
		}
		end := hi
		if k+1 < n {
			end = uint64(le32(b, extentHeader*(k+2)))
		}
		if end <= m.next {
			continue
		}
		if first >= m.end {
			return nil
		}
		child := uint64(le32(e, 4)) | uint64(le16(e, 8))<<32
		if err := m.child(child, depth-1, first, end); err != nil || m.done() {
			return err
		}
	}
	return nil
}

func (m *mapper) child(block uint64, depth int, lo, hi uint64) error {
	if err := m.check(block, 1); err != nil {
		return fmt.Errorf("extent tree: %w", err)
	}
	b, err := m.i.fs.block(block)
	if err != nil {
		return fmt.Errorf("extent tree: %w", err)
	}
	return m.node(b, depth, false, lo, hi, fmt.Sprintf("block %d", block))
}

// extent takes an extent of a leaf.
func extent(e []byte) Run {
	r := Run{
		Logical: uint64(le32(e, 0)), Blocks: uint64(le16(e, 4)),
		Physical: uint64(le32(e, 8)) | uint64(le16(e, 6))<<32,
	}
	if r.Blocks > maxExtent {
		r.Blocks, r.Kind = r.Blocks-maxExtent, Unwritten
	}
	return r
}

// checkNode checks the header, the checksum and the order of all entries, and
// returns how many there are.
func (m *mapper) checkNode(b []byte, depth int, root bool, lo, hi uint64) (int, error) {
	if got := le16(b, 0); got != extentMagic {
		return 0, damaged("magic %04x", got)
	}
	n, room := int(le16(b, 2)), int(le16(b, 4))
	if fits := len(b)/extentHeader - 1; room == 0 || room > fits || n > room {
		return 0, damaged("%d entries of %d, %d fit", n, room, fits)
	}
	if got := int(le16(b, 6)); got != depth {
		return 0, damaged("depth %d, not %d", got, depth)
	}
	if !root && m.i.fs.checksums() {
		tail := extentHeader * (room + 1)
		if tail+4 > len(b) {
			return 0, damaged("%d entries leave no room for the checksum", room)
		}
		if want, got := le32(b, tail), crc(m.i.seed, b[:tail]); want != got {
			return 0, damaged("checksum %08x, computed %08x", want, got)
		}
	}
	if n == 0 {
		if depth > 0 || !root {
			return 0, damaged("is empty")
		}
		return 0, nil
	}
	next := lo
	for k := range n {
		e := b[extentHeader*(k+1):][:extentHeader]
		first, length := uint64(le32(e, 0)), uint64(1)
		if depth == 0 {
			length = extent(e).Blocks
		}
		switch {
		case k == 0 && !root && first != lo:
			return 0, damaged("begins with block %d, not %d", first, lo)
		case first < next:
			return 0, damaged("entry %d: block %d is not behind that before it", k, first)
		case length == 0:
			return 0, damaged("entry %d: an extent of no blocks", k)
		case first+length > hi:
			return 0, damaged("entry %d: block %d is not before block %d", k, first+length-1, hi)
		}
		next = first + length
	}
	return n, nil
}
