package ext4

import "fmt"

// direct is the number of blocks that the inode itself points to; one pointer each
// to a tree of one, two and three levels follows.
const direct = 12

// pointers walks the map of ext2 and ext3.
func (m *mapper) pointers() error {
	f := m.i.fs
	per := uint64(f.blockSize / 4)
	reach := direct + per + per*per + per*per*per
	if size := uint64(m.i.Size+int64(f.blockSize)-1) >> f.blockBits; size > reach {
		return damaged("a size of %d bytes, more than its block map can hold", m.i.Size)
	}
	for k := range uint64(direct) {
		if err := m.pointer(le32(m.i.data[:], int(4*k)), 0, k, 1); err != nil || m.done() {
			return err
		}
	}
	first, span := uint64(direct), uint64(1)
	for level := 1; level <= 3; level++ {
		span *= per
		if err := m.pointer(le32(m.i.data[:], 4*(direct+level-1)), level, first, span); err != nil || m.done() {
			return err
		}
		first += span
	}
	return nil
}

// pointer follows one to a block, or to a tree of some levels, that maps span blocks
// from first on. What is not asked for is not read.
func (m *mapper) pointer(block uint32, level int, first, span uint64) error {
	f := m.i.fs
	if block == 0 || first+span <= m.next || first >= m.end {
		return nil
	}
	if err := m.check(uint64(block), 1); err != nil {
		return fmt.Errorf("block map: block %d of the file: %w", first, err)
	}
	if level == 0 {
		m.add(Run{Logical: first, Physical: uint64(block), Blocks: 1})
		return nil
	}
	// A block that points to itself would be met again and again.
	if m.trees++; m.trees > f.blocks {
		return damaged("block map: has more blocks than the file system")
	}
	b, err := f.block(uint64(block))
	if err != nil {
		return fmt.Errorf("block map: %w", err)
	}
	span /= uint64(len(b) / 4)
	k := uint64(0)
	if m.next > first {
		k = (m.next - first) / span
	}
	for ; k < uint64(len(b)/4); k++ {
		if err := m.pointer(le32(b, int(4*k)), level-1, first+k*span, span); err != nil || m.done() {
			return err
		}
	}
	return nil
}
