package ext4

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// A zoneRun is a run of blocks in which the file system keeps tables of its own.
type zoneRun struct{ first, n uint64 }

// maxZone bounds the runs that are kept: without flex_bg, where no two groups have
// theirs together, 128 TiB with 4 KiB blocks.
const maxZone = 1 << 20

// outside checks that none of n blocks from first on holds metadata.
func (f *FS) outside(first, n uint64) error {
	runs, err := f.metadata()
	if err != nil {
		return err
	}
	i, _ := slices.BinarySearchFunc(runs, first, func(r zoneRun, b uint64) int { return cmp.Compare(r.first+r.n, b+1) })
	if i < len(runs) && runs[i].first < first+n {
		return damaged("blocks %d to %d hold metadata of the file system", first, first+n-1)
	}
	return nil
}

// metadata returns where the file system keeps superblocks, descriptors, bitmaps,
// inode tables and the journal. It reads all group descriptors, once.
func (f *FS) metadata() ([]zoneRun, error) {
	f.zone.Lock()
	defer f.zone.Unlock()
	if f.zone.built {
		return f.zone.runs, nil
	}
	runs, err := f.tables()
	if err != nil {
		return nil, err
	}
	if runs, err = f.withJournal(runs); err != nil {
		return nil, err
	}
	f.zone.runs, f.zone.built = runs, true
	return runs, nil
}

func (f *FS) tables() ([]zoneRun, error) {
	var runs []zoneRun
	add := func(first, n uint64) error {
		if k := len(runs); k > 0 && runs[k-1].first+runs[k-1].n == first {
			runs[k-1].n += n
			return nil
		}
		if len(runs) >= maxZone {
			var err error
			if runs, err = merge(runs); err != nil {
				return err
			}
			if len(runs) > maxZone/2 {
				return fmt.Errorf("metadata in more than %d places: %w", maxZone/2, ErrUnsupported)
			}
		}
		runs = append(runs, zoneRun{first, n})
		return nil
	}
	raw := make([]byte, f.blockSize)
	var have uint64 // block in raw
	for n := range f.groups {
		if at := f.descBlock(n); at != have {
			if !f.valid(at, 1) {
				return nil, damaged("group descriptor %d: block %d is not one of the file system", n, at)
			}
			if err := f.read(raw, int64(at)<<f.blockBits); err != nil {
				return nil, fmt.Errorf("group descriptor %d: %w", n, err)
			}
			have = at
		}
		g, err := f.parseGroup(n, raw[int(n%f.descPerBlock())*f.descSize:][:f.descSize])
		if err != nil {
			return nil, fmt.Errorf("group descriptor %d: %w", n, err)
		}
		first, k := f.head(n)
		for _, r := range []zoneRun{{first, k}, {g.blockBitmap, 1}, {g.inodeBitmap, 1}, {g.inodeTable, f.tableBlocks()}} {
			if r.n == 0 {
				continue
			}
			if err := add(r.first, r.n); err != nil {
				return nil, err
			}
		}
	}
	return merge(runs)
}

// head returns the blocks at the beginning of a group that hold the superblock and
// group descriptors.
func (s *super) head(n uint32) (first, count uint64) {
	first = s.firstOf(n)
	if s.hasSuper(n) {
		count = 1
		if n == 0 { // with clusters of 1 KiB blocks there is a block before it
			count += s.superBlock() - first
		}
	}
	if s.inMetaBG(n) {
		// The first, second and last group of a meta block group have its descriptors.
		if k := n % s.descPerBlock(); k < 2 || k == s.descPerBlock()-1 {
			count++
		}
	} else if count > 0 {
		if s.incompat&incompatMetaBG != 0 {
			count += uint64(s.firstMetaBG)
		} else {
			count += uint64(s.descBlocks()) + uint64(s.reservedGDT)
		}
	}
	return first, min(count, s.blocks-first)
}

// merge sorts runs and joins neighbours; none may share a block with another.
func merge(runs []zoneRun) ([]zoneRun, error) {
	slices.SortFunc(runs, func(a, b zoneRun) int { return cmp.Compare(a.first, b.first) })
	out := runs[:0]
	for _, r := range runs {
		k := len(out) - 1
		switch {
		case k < 0 || out[k].first+out[k].n < r.first:
			out = append(out, r)
		case out[k].first+out[k].n == r.first:
			out[k].n += r.n
		default:
			return nil, damaged("group descriptors: block %d has two uses", r.first)
		}
	}
	return out, nil
}

// withJournal adds the blocks of the journal, if it is in the file system.
func (f *FS) withJournal(runs []zoneRun) ([]zoneRun, error) {
	if f.compat&compatJournal == 0 || f.journal == 0 {
		return runs, nil
	}
	if f.journal >= f.firstInode {
		return nil, damaged("journal: inode %d is not a reserved one", f.journal)
	}
	i, err := f.inode(f.journal)
	if errors.Is(err, ErrUnused) {
		return nil, damaged("journal: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	m := mapper{i: i, end: uint64(i.Size+int64(f.blockSize)-1) >> f.blockBits, anywhere: true}
	var bad error
	m.yield = func(r Run, err error) bool {
		if err == nil && r.Kind == Hole {
			err = damaged("journal: has a hole at block %d", r.Logical)
		}
		if err == nil && len(runs) >= maxZone {
			err = fmt.Errorf("journal: in too many places: %w", ErrUnsupported)
		}
		if bad = err; bad != nil {
			return false
		}
		runs = append(runs, zoneRun{r.Physical, r.Blocks})
		return true
	}
	m.run()
	if bad != nil {
		return nil, bad
	}
	return merge(runs)
}
