package ext4

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

// maxDirRuns bounds what is held of the map of a directory.
const maxDirRuns = 1 << 20

// Entries yields the names of a directory in the order of its blocks, "." and ".."
// included. The name is the caller's. An error is the last thing that it yields; a
// directory is refused as a whole where its index or a block is damaged, but what was
// yielded before is whole.
func (i *Inode) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		stopped := false
		err := i.entries(func(e Entry) bool {
			stopped = !yield(e, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(Entry{}, fmt.Errorf("ext4: directory %d: %w", i.Number, err))
		}
	}
}

// A dir goes through the blocks of a directory.
type dir struct {
	*Inode
	hash    byte // version; only if hashes
	hashes  bool
	visit   func(Entry) bool
	stopped bool
}

func (i *Inode) entries(visit func(Entry) bool) error {
	if i.Type() != Directory {
		return fmt.Errorf("a %v has no names: %w", i.Type(), ErrUnsupported)
	}
	f := i.fs
	d := dir{Inode: i, visit: visit, hash: f.hashVersion}
	if f.compat&compatDirIndex != 0 && i.Casefolded() == i.hashInEntry() {
		d.hashes = i.Flags&(flagIndex|flagInlineData) != 0 || i.Size == int64(f.blockSize)
	}
	if i.Flags&flagInlineData != 0 {
		return d.inline()
	}
	runs, err := i.dirRuns()
	if err != nil {
		return err
	}
	index := map[uint64]bool{} // blocks that hold no names
	if i.Flags&flagIndex != 0 {
		if index, err = d.index(runs); err != nil {
			return err
		}
	}
	raw := make([]byte, f.blockSize)
	for _, r := range runs {
		for k := range r.Blocks {
			if index[r.Logical+k] {
				continue
			}
			if err := f.read(raw, int64(r.Physical+k)<<f.blockBits); err != nil {
				return err
			}
			if err := d.leaf(raw, r.Logical+k); err != nil {
				return fmt.Errorf("block %d (%d): %w", r.Logical+k, r.Physical+k, err)
			}
			if d.stopped {
				return nil
			}
		}
	}
	return nil
}

// hashInEntry reports whether entries are followed by their hash: it needs the key.
func (i *Inode) hashInEntry() bool { return i.Encrypted() && i.Casefolded() }

// dirRuns returns where a directory lies: without holes, and no block twice.
func (i *Inode) dirRuns() (runs []Run, err error) {
	var n uint64
	for r, err := range i.runs(0, uint64(i.Size)>>i.fs.blockBits) {
		if err != nil {
			return nil, err
		}
		if r.Kind != Data {
			return nil, damaged("block %d is a %v", r.Logical, r.Kind)
		}
		if n += r.Blocks; n > i.fs.blocks {
			return nil, damaged("has more blocks than the file system")
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

// leafTail is the size of the entry without a name at the end of a block that holds
// its checksum.
const leafTail = 12

// leaf goes through a block with names.
func (d *dir) leaf(b []byte, block uint64) error {
	if d.fs.checksums() {
		t := b[len(b)-leafTail:]
		if le32(t, 0) != 0 || le16(t, 4) != leafTail || t[6] != 0 || t[7] != 0xde {
			return damaged("has no checksum")
		}
		b = b[:len(b)-leafTail]
		if want, got := le32(t, 8), crc(d.seed, b); want != got {
			return damaged("checksum %08x, computed %08x", want, got)
		}
	}
	at := 0
	if block == 0 {
		var err error
		if at, err = d.dots(b); err != nil || d.stopped {
			return err
		}
	}
	return d.names(b, at)
}

// dots takes the two entries with which a directory begins.
func (d *dir) dots(b []byte) (at int, err error) {
	for _, want := range []string{".", ".."} {
		e, n, err := d.entry(b, at)
		switch {
		case err != nil:
			return 0, err
		case e.Inode == 0 || string(e.Name) != want:
			return 0, damaged("byte %d: is not the entry %q", at, want)
		case want == "." && e.Inode != d.Number:
			return 0, damaged("%q is inode %d", want, e.Inode)
		}
		at += n
		d.give(e)
	}
	return at, nil
}

func (d *dir) give(e Entry) {
	if !d.stopped {
		d.stopped = !d.visit(e)
	}
}

// names takes all further entries.
func (d *dir) names(b []byte, at int) error {
	for at < len(b) && !d.stopped {
		e, n, err := d.entry(b, at)
		if err != nil {
			return err
		}
		if e.Inode != 0 {
			if err := d.checkName(e.Name); err != nil {
				return fmt.Errorf("byte %d: %w", at, err)
			}
			switch {
			case d.hashInEntry():
				h := b[at+8+(len(e.Name)+3)&^3:]
				e.Hash, e.MinorHash = le32(h, 0), le32(h, 4)
			case d.hashes:
				e.Hash, e.MinorHash = d.fs.nameHash(d.hash, e.Name)
			}
			d.give(e)
		}
		at += n
	}
	return nil
}

func (d *dir) checkName(name []byte) error {
	if string(name) == "." || string(name) == ".." {
		return damaged("a second entry %q", name)
	}
	if !d.Encrypted() && bytes.ContainsAny(name, "/\x00") {
		return damaged("the name %q cannot be", name)
	}
	return nil
}

// entry parses the entry at some byte of b, of which it must not pass the end, and
// returns its length too. Inode 0 is free room.
func (d *dir) entry(b []byte, at int) (e Entry, length int, err error) {
	f := d.fs
	if len(b)-at < 12 {
		return e, 0, damaged("byte %d: no room for an entry", at)
	}
	h := b[at:]
	e.Inode, length = le32(h, 0), int(le16(h, 4))
	if f.blockSize == 1<<16 { // the length of a whole block does not fit
		if length == 0 || length == 1<<16-1 {
			length = 1 << 16
		} else {
			length = length&^3 | length&3<<16
		}
	}
	name := int(h[6])
	need := 8 + (name+3)&^3
	if d.hashInEntry() && e.Inode != 0 && !(name <= 2 && (string(h[8:8+name]) == "." || string(h[8:8+name]) == "..")) {
		need += 8
	}
	switch {
	case length < 12 || length%4 != 0 || length > len(h):
		return e, 0, damaged("byte %d: an entry of %d bytes", at, length)
	case need > length:
		return e, 0, damaged("byte %d: a name of %d bytes in an entry of %d", at, name, length)
	case e.Inode == 0:
		return e, length, nil
	case e.Inode > f.inodes || e.Inode < f.firstInode && e.Inode != Root:
		return e, 0, damaged("byte %d: inode %d is not one of a file", at, e.Inode)
	case name == 0:
		return e, 0, damaged("byte %d: inode %d without a name", at, e.Inode)
	}
	if f.incompat&incompatFiletype != 0 {
		if e.Type = Type(h[7]); int(e.Type) >= fstype.Types {
			return e, 0, damaged("byte %d: inode %d of type %d", at, e.Inode, h[7])
		}
	} else if h[7] != 0 { // the upper half of the length of the name
		return e, 0, damaged("byte %d: a name of %d bytes", at, le16(h, 6))
	}
	e.Name = bytes.Clone(h[8 : 8+name])
	return e, length, nil
}
