package f2fs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Flags of a checkpoint.
const (
	cpUnmounted  = 0x1
	cpCompactSum = 0x4
	cpLargeNAT   = 0x400
)

const (
	natEntrySize    = 9
	natPerBlock     = BlockSize / natEntrySize
	journalEntry    = 4 + natEntrySize
	maxJournal      = (507 - 2) / journalEntry
	summaryJournal  = 512 * 7 // byte of a summary block at which its journal begins
	checkpointFixed = 192     // bytes before the maps
)

// A natEntry says where a node lies, and to which inode it belongs.
type natEntry struct{ inode, block uint32 }

// checkpoint reads the newer of both packs that is whole, and returns its flags.
func (f *FS) checkpoint() (flags uint32, err error) {
	var best []byte
	var at uint32
	var errs [2]error
	for k := range uint32(2) {
		start := f.cp + k*f.perSeg
		b, err := f.pack(start)
		if errs[k] = err; err != nil {
			continue
		}
		if best == nil || int64(version(b)-version(best)) > 0 {
			best, at = b, start
		}
	}
	if best == nil {
		return 0, fmt.Errorf("none of two is valid: %w; %w", errs[0], errs[1])
	}
	flags = le32(best, 132)
	if err := f.maps(best, flags); err != nil {
		return 0, err
	}
	if err := f.readJournal(at+le32(best, 140), flags); err != nil {
		return 0, fmt.Errorf("journal: %w", err)
	}
	return flags, nil
}

func version(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// pack returns the first blocks of a pack, whose first and last are both good and of
// one version.
func (f *FS) pack(start uint32) ([]byte, error) {
	first, err := f.half(start)
	if err != nil {
		return nil, err
	}
	total := le32(first, 136)
	if total < 2+f.payload || total > f.perSeg {
		return nil, damaged("block %d: a checkpoint of %d blocks", start, total)
	}
	if sum := le32(first, 140); sum == 0 || sum >= total-1 {
		return nil, damaged("block %d: summaries at block %d of %d", start, sum, total)
	}
	last, err := f.half(start + total - 1)
	if err != nil {
		return nil, err
	}
	if version(first) != version(last) {
		return nil, damaged("block %d: begins with version %x and ends with %x", start, version(first), version(last))
	}
	whole := make([]byte, int(1+f.payload)<<blockBits)
	if err := f.read(whole, int64(start)<<blockBits); err != nil {
		return nil, err
	}
	return whole, nil
}

func (f *FS) half(n uint32) ([]byte, error) {
	b, err := f.block(uint64(n))
	if err != nil {
		return nil, err
	}
	at := int(le32(b, 164))
	if at < checkpointFixed || at > BlockSize-4 || at%4 != 0 {
		return nil, damaged("block %d: a checksum at byte %d", n, at)
	}
	c := crc(magic, b[:at])
	if at < BlockSize-4 {
		c = crc(c, b[at+4:])
	}
	if want := le32(b, at); want != c {
		return nil, damaged("block %d: checksum %08x, computed %08x", n, want, c)
	}
	return b, nil
}

// maps takes the map that says which copy of each block of the node table is valid.
func (f *FS) maps(b []byte, flags uint32) error {
	sit, nat := int64(le32(b, 156)), int64(le32(b, 160))
	need := int64(f.natSegs) * int64(f.perSeg) / 8
	if nat < need {
		return damaged("a map of %d bytes for %d of node table", nat, need)
	}
	at := int64(checkpointFixed)
	switch {
	case flags&cpLargeNAT != 0:
		at += 4
	case f.payload == 0:
		at += sit
	}
	if at+nat > int64(len(b)) {
		return damaged("maps of %d and %d bytes", sit, nat)
	}
	f.natBits = b[at:][:need]
	return nil
}

// readJournal takes the changes of the node table that are in the summaries only.
func (f *FS) readJournal(block, flags uint32) error {
	b, err := f.block(uint64(block))
	if err != nil {
		return err
	}
	if flags&cpCompactSum == 0 {
		b = b[summaryJournal:]
	}
	n := int(le16(b, 0))
	if n > maxJournal {
		return damaged("%d entries, at most %d fit", n, maxJournal)
	}
	f.journal = make(map[uint32]natEntry, n)
	for k := range n {
		e := b[2+k*journalEntry:]
		nid := le32(e, 0)
		if _, twice := f.journal[nid]; twice {
			return damaged("node %d is there twice", nid)
		}
		f.journal[nid] = natEntry{le32(e, 5), le32(e, 9)}
	}
	return nil
}

// node reads a node of an inode and returns its block.
func (f *FS) node(nid, inode uint32) ([]byte, error) {
	e, err := f.find(nid)
	if errors.Is(err, ErrUnused) && nid != inode { // part of a file that is there
		return nil, damaged("node %d: %v", nid, err)
	}
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", nid, err)
	}
	if e.inode != inode {
		return nil, damaged("node %d: belongs to inode %d, not %d", nid, e.inode, inode)
	}
	if !f.inMain(e.block) {
		return nil, damaged("node %d: block %d is not in the main area", nid, e.block)
	}
	b, err := f.block(uint64(e.block))
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", nid, err)
	}
	if footer := b[nodeFooter:]; le32(footer, 0) != nid || le32(footer, 4) != inode {
		return nil, damaged("node %d: block %d holds node %d of inode %d", nid, e.block, le32(footer, 0), le32(footer, 4))
	}
	return b, nil
}

// find looks a node up: in the journal, then in the table.
func (f *FS) find(nid uint32) (natEntry, error) {
	if e, ok := f.journal[nid]; ok {
		return f.used(e)
	}
	k := nid / natPerBlock
	if nid == 0 || k >= f.natSegs*f.perSeg {
		return natEntry{}, damaged("is not one of the node table")
	}
	at := uint64(f.nat) + 2*uint64(k-k%f.perSeg) + uint64(k%f.perSeg)
	if f.natBits[k/8]&(0x80>>(k%8)) != 0 {
		at += uint64(f.perSeg)
	}
	e := make([]byte, natEntrySize)
	if err := f.read(e, int64(at)<<blockBits+int64(nid%natPerBlock)*natEntrySize); err != nil {
		return natEntry{}, err
	}
	return f.used(natEntry{le32(e, 1), le32(e, 5)})
}

func (f *FS) used(e natEntry) (natEntry, error) {
	if e.block == 0 {
		return e, ErrUnused
	}
	return e, nil
}
