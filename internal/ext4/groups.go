package ext4

import (
	"fmt"
)

// A group is what is needed of a group descriptor.
type group struct {
	number                               uint32
	blockBitmap, inodeBitmap, inodeTable uint64 // blocks
	used                                 uint32 // inodes from the first on that may be in use
}

// descPerBlock and descBlocks tell how the table of group descriptors is laid out.
func (s *super) descPerBlock() uint32 { return uint32(s.blockSize / s.descSize) }
func (s *super) descBlocks() uint32   { return (s.groups-1)/s.descPerBlock() + 1 }
func (s *super) tableBlocks() uint64 {
	return (uint64(s.inodesPer)*uint64(s.inodeSize) + uint64(s.blockSize) - 1) >> s.blockBits
}

// firstOf is the first block of a group.
func (s *super) firstOf(group uint32) uint64 {
	return uint64(s.firstBlock) + uint64(group)*uint64(s.perGroup)
}

// hasSuper reports whether a group begins with a copy of the superblock.
func (s *super) hasSuper(group uint32) bool {
	switch {
	case group == 0:
		return true
	case s.compat&compatSparseSuper2 != 0:
		return group == s.backups[0] || group == s.backups[1]
	case group == 1 || s.ro&roSparseSuper == 0:
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		for p := base; p <= uint64(group); p *= base {
			if p == uint64(group) {
				return true
			}
		}
	}
	return false
}

// inMetaBG reports whether the descriptor of a group lies in its meta block group.
func (s *super) inMetaBG(group uint32) bool {
	return s.incompat&incompatMetaBG != 0 && group/s.descPerBlock() >= s.firstMetaBG
}

// superBlock is the block with the superblock of group 0, which with clusters of
// 1 KiB blocks is not the group's first.
func (s *super) superBlock() uint64 { return uint64(superOffset) >> s.blockBits }

// descBlock returns the block with the descriptor of a group.
func (s *super) descBlock(group uint32) uint64 {
	n := group / s.descPerBlock()
	if !s.inMetaBG(group) {
		return s.superBlock() + 1 + uint64(n)
	}
	first := n * s.descPerBlock()
	at := s.firstOf(first)
	if first == 0 {
		return s.superBlock() + 1
	}
	if s.hasSuper(first) {
		at++
	}
	return at
}

// group reads the descriptor of a group.
func (f *FS) group(n uint32) (*group, error) {
	if g := f.last.Load(); g != nil && g.number == n {
		return g, nil
	}
	block := f.descBlock(n)
	if !f.valid(block, 1) {
		return nil, damaged("group descriptor %d: block %d is not one of the file system", n, block)
	}
	raw := make([]byte, f.descSize)
	if err := f.read(raw, int64(block)<<f.blockBits+int64(n%f.descPerBlock())*int64(f.descSize)); err != nil {
		return nil, fmt.Errorf("group descriptor %d: %w", n, err)
	}
	g, err := f.parseGroup(n, raw)
	if err != nil {
		return nil, fmt.Errorf("group descriptor %d: %w", n, err)
	}
	f.last.Store(g)
	return g, nil
}

// Flags of a descriptor.
const groupNoInodes = 1 // none was ever written

func (s *super) parseGroup(n uint32, b []byte) (*group, error) {
	if want, got := le16(b, 0x1e), s.groupChecksum(n, b); s.hasGroupChecksum() && got != want {
		return nil, damaged("checksum %04x, computed %04x", want, got)
	}
	at := func(lo, hi int) uint64 {
		if len(b) < 64 {
			return uint64(le32(b, lo))
		}
		return wide(le32(b, lo), le32(b, hi))
	}
	g := &group{number: n, blockBitmap: at(0, 0x20), inodeBitmap: at(4, 0x24), inodeTable: at(8, 0x28), used: s.inodesPer}
	for _, r := range []struct {
		name     string
		first, n uint64
	}{{"block bitmap", g.blockBitmap, 1}, {"inode bitmap", g.inodeBitmap, 1}, {"inode table", g.inodeTable, s.tableBlocks()}} {
		if r.first <= uint64(s.firstBlock) || r.first >= s.blocks || r.n > s.blocks-r.first {
			return nil, damaged("%s at block %d is outside of the file system", r.name, r.first)
		}
		lo := s.firstOf(n)
		if s.incompat&incompatFlexBG == 0 && (r.first < lo || r.first+r.n > lo+uint64(s.perGroup)) {
			return nil, damaged("%s at block %d is outside of its group", r.name, r.first)
		}
	}
	if s.hasGroupChecksum() {
		unused := uint32(le16(b, 0x1c))
		if len(b) >= 64 {
			unused |= uint32(le16(b, 0x32)) << 16
		}
		if unused > s.inodesPer {
			return nil, damaged("%d of %d inodes are unused", unused, s.inodesPer)
		}
		g.used -= unused
		if le16(b, 0x12)&groupNoInodes != 0 {
			g.used = 0
		}
	}
	return g, nil
}

func (s *super) hasGroupChecksum() bool { return s.ro&(roGDTCsum|roMetadataCsum) != 0 }

func (s *super) groupChecksum(n uint32, b []byte) uint16 {
	const at = 0x1e
	number := []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
	if s.checksums() {
		c := crc(crc(s.seed, number), b[:at])
		return uint16(crc(crc(c, zeros[:2]), b[at+2:]))
	}
	c := crc16(crc16(crc16(^uint16(0), s.uuid[:]), number), b[:at])
	return crc16(c, b[at+2:])
}
