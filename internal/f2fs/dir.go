package f2fs

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"slices"

	"keyway/internal/fstype"
)

// An Entry is one name in a directory.
type Entry = fstype.Entry

const (
	slotEntry = 11 // bytes of an entry without its name
	slotName  = 8  // bytes of name in a slot
	maxName   = 255

	blockSlots = 214 // in a block of a directory
)

// Entries yields the names of a directory in the order of its blocks, "." and ".."
// included. The name is the caller's. An error is the last thing that it yields.
func (i *Inode) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		stopped := false
		err := i.entries(func(e Entry) bool {
			stopped = !yield(e, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(Entry{}, i.wrap(err))
		}
	}
}

func (i *Inode) entries(visit func(Entry) bool) error {
	if i.Type() != Directory {
		return fmt.Errorf("a %v has no names: %w", i.Type(), ErrUnsupported)
	}
	if i.inline&inlineDentry != 0 {
		area := i.inlineArea()
		slots := len(area) * 8 / ((slotEntry+slotName)*8 + 1)
		_, err := i.slots(area, slots, visit)
		return err
	}
	runs, err := i.dirRuns()
	if err != nil {
		return err
	}
	b := make([]byte, BlockSize)
	for _, r := range runs {
		for k := range r.Blocks {
			if err := i.fs.read(b, int64(r.Physical+k)<<blockBits); err != nil {
				return err
			}
			if more, err := i.slots(b, blockSlots, visit); err != nil {
				return fmt.Errorf("block %d (%d): %w", r.Logical+k, r.Physical+k, err)
			} else if !more {
				return nil
			}
		}
	}
	return nil
}

// maxDirRuns bounds what is held of the map of a directory.
const maxDirRuns = 1 << 20

// dirRuns returns where a directory lies. No block may be there twice: an address of
// four bytes would make two hundred names each time.
func (i *Inode) dirRuns() (runs []Run, err error) {
	for r, err := range i.Map(0, uint64(i.Size)>>blockBits) {
		if err != nil {
			return nil, err
		}
		if r.Kind != Data { // buckets without names
			continue
		}
		if len(runs) == maxDirRuns {
			return nil, fmt.Errorf("in more than %d places: %w", maxDirRuns, ErrUnsupported)
		}
		runs = append(runs, r)
	}
	sorted := slices.SortedFunc(slices.Values(runs), func(a, b Run) int { return cmp.Compare(a.Physical, b.Physical) })
	for k := 1; k < len(sorted); k++ {
		if a, b := sorted[k-1], sorted[k]; b.Physical < a.Physical+a.Blocks {
			return nil, damaged("block %d has block %d for the second time", b.Logical, b.Physical)
		}
	}
	return runs, nil
}

// slots goes through a block of names: a map of the slots in use, entries, and behind
// them as many pieces of names, of which a long name takes several.
func (i *Inode) slots(b []byte, n int, visit func(Entry) bool) (more bool, err error) {
	used := b[:(n+7)/8]
	names := b[len(b)-n*slotName:]
	table := b[len(b)-n*(slotName+slotEntry):]
	for k := 0; k < n; {
		if used[k/8]&(1<<(k%8)) == 0 {
			k++
			continue
		}
		d := table[k*slotEntry:]
		e := Entry{Hash: le32(d, 0), Inode: le32(d, 4), Type: Type(d[10])}
		length := int(le16(d, 8))
		took := (length + slotName - 1) / slotName
		switch {
		case length == 0 || length > maxName || k+took > n:
			return false, damaged("slot %d: a name of %d bytes", k, length)
		case e.Type == Unknown || int(e.Type) >= fstype.Types:
			return false, damaged("slot %d: inode %d of type %d", k, e.Inode, d[10])
		}
		for s := k; s < k+took; s++ {
			if used[s/8]&(1<<(s%8)) == 0 {
				return false, damaged("slot %d: the name reaches over slot %d, which is not in use", k, s)
			}
		}
		e.Name = bytes.Clone(names[k*slotName:][:length])
		if !i.Encrypted() && bytes.ContainsAny(e.Name, "/\x00") {
			return false, damaged("slot %d: the name %q cannot be", k, e.Name)
		}
		if !visit(e) {
			return false, nil
		}
		k += took
	}
	return true, nil
}

// Lookup returns the entry of that name, compared byte for byte, or ErrNotExist.
func (i *Inode) Lookup(name []byte) (Entry, error) {
	for e, err := range i.Entries() {
		if err != nil {
			return Entry{}, err
		}
		if bytes.Equal(e.Name, name) {
			return e, nil
		}
	}
	return Entry{}, i.wrap(fmt.Errorf("%.100q %w", name, ErrNotExist))
}

// Lookup follows names from the root. Symbolic links are not followed.
func (f *FS) Lookup(names ...[]byte) (*Inode, error) {
	i, err := f.Inode(f.root)
	for _, name := range names {
		if err != nil {
			return nil, err
		}
		var e Entry
		if e, err = i.Lookup(name); err == nil {
			i, err = f.Open(e)
		}
	}
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Open reads the inode of an entry, which must be in use and of the type that the
// entry says.
func (f *FS) Open(e Entry) (*Inode, error) {
	i, err := f.Inode(e.Inode)
	if err != nil {
		return nil, err
	}
	if t := i.Type(); e.Type != t {
		return nil, i.wrap(damaged("is a %v, and %.100q says a %v", t, e.Name, e.Type))
	}
	return i, nil
}
