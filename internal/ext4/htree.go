package ext4

import "fmt"

// index walks the index of a directory and returns which blocks hold it, and so no
// names but those of the root. Names are read block by block, not by the index; it is
// checked since Linux finds names by it alone.
func (d *dir) index(runs []Run) (map[uint64]bool, error) {
	x := index{dir: d, runs: runs, blocks: uint64(d.Size) >> d.fs.blockBits, nodes: map[uint64]bool{}, seen: map[uint32]bool{0: true}}
	err := x.root()
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return x.nodes, nil
}

type index struct {
	*dir
	runs   []Run
	blocks uint64
	nodes  map[uint64]bool
	seen   map[uint32]bool // blocks that an entry names
}

// read returns a block of the directory.
func (x *index) read(block uint64) ([]byte, error) {
	f := x.fs
	b := make([]byte, f.blockSize)
	for _, r := range x.runs {
		if block-r.Logical < r.Blocks {
			return b, f.read(b, int64(r.Physical+block-r.Logical)<<f.blockBits)
		}
	}
	panic("ext4: a block that the directory does not have")
}

const (
	rootEntries = 0x20 // byte at which those of the root begin
	nodeEntries = 8
	nodeTail    = 8
)

func (x *index) root() error {
	b, err := x.read(0)
	if err != nil {
		return err
	}
	info := b[0x18:]
	levels := int(info[6])
	most := 2
	if x.fs.incompat&incompatLargeDir != 0 {
		most = 3
	}
	switch {
	case le32(info, 0) != 0 || info[5] != 8 || info[7]&1 != 0:
		return damaged("root: header % x", info[:8])
	case info[4] > hashTEA && info[4] != hashSipHash || (info[4] == hashSipHash) != x.hashInEntry():
		return damaged("root: hash of kind %d", info[4])
	case levels >= most:
		return damaged("root: %d levels, at most %d are possible", levels+1, most)
	}
	x.hash = info[4]
	x.nodes[0] = true
	if err := x.node(b, rootEntries, levels, 0, 1<<32); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	// The root is a block with names too, of which there are two.
	end, err := x.dots(b)
	if err == nil && end != x.fs.blockSize && !x.stopped {
		err = damaged("root: the second entry ends at byte %d", end)
	}
	return err
}

// node checks a node whose entries begin at some byte, and what is below it. Hashes in
// it are from lo on and before hi.
func (x *index) node(b []byte, at, levels int, lo, hi uint64) error {
	limit, count := int(le16(b, at)), int(le16(b, at+2))
	room := (len(b) - at) / 8
	if x.fs.checksums() {
		room = (len(b) - at - nodeTail) / 8
	}
	// Linux takes a limit that is right for the block and no other.
	if limit != room || count == 0 || count > limit {
		return damaged("%d entries of %d, %d fit", count, limit, room)
	}
	if x.fs.checksums() {
		tail := b[at+8*limit:]
		got := crc(crc(crc(x.seed, b[:at+8*count]), tail[:4]), zeros[:])
		if want := le32(tail, 4); want != got {
			return damaged("checksum %08x, computed %08x", want, got)
		}
	}
	for k := range count {
		e := b[at+8*k:]
		first, end := uint64(le32(e, 0)), hi
		if k == 0 {
			first = lo // the count is in its place
		}
		if k+1 < count {
			end = uint64(le32(e, 8))
		}
		// An odd hash tells that names with the hash before began in the block before.
		if first < lo || end < first || end > hi {
			return damaged("entry %d: hashes from %08x on and before %08x are not between %08x and %08x", k, first, end, lo, hi)
		}
		block := le32(e, 4) & 0x0fffffff
		if uint64(block) >= x.blocks {
			return damaged("entry %d: block %d of %d", k, block, x.blocks)
		}
		if x.seen[block] {
			return damaged("entry %d: block %d for the second time", k, block)
		}
		x.seen[block] = true
		if levels == 0 {
			continue
		}
		child, err := x.read(uint64(block))
		if err != nil {
			return err
		}
		if le32(child, 0) != 0 || int(le16(child, 4)) != x.wholeBlock() || child[6] != 0 {
			return damaged("block %d: is not a node", block)
		}
		x.nodes[uint64(block)] = true
		if err := x.node(child, nodeEntries, levels-1, first, end); err != nil {
			return fmt.Errorf("block %d: %w", block, err)
		}
	}
	return nil
}

// wholeBlock is the length of an entry of a whole block, as it is written.
func (x *index) wholeBlock() int {
	if x.fs.blockSize == 1<<16 {
		return 1<<16 - 1
	}
	return x.fs.blockSize
}
