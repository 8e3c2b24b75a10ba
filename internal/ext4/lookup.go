package ext4

import (
	"bytes"
	"fmt"
)

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
	return Entry{}, fmt.Errorf("ext4: directory %d: %.100q %w", i.Number, name, ErrNotExist)
}

// Lookup follows names from the root. Symbolic links are not followed.
func (f *FS) Lookup(names ...[]byte) (*Inode, error) {
	i, err := f.Inode(Root)
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
	i, err := f.open(e)
	if err != nil {
		return nil, fmt.Errorf("ext4: %w", err)
	}
	return i, nil
}

func (f *FS) open(e Entry) (*Inode, error) {
	i, err := f.file(e.Inode)
	if err != nil {
		return nil, fmt.Errorf("%.100q: %w", e.Name, err)
	}
	if t := i.Type(); e.Type != Unknown && e.Type != t {
		return nil, damaged("%.100q: a %v, and inode %d is a %v", e.Name, e.Type, e.Inode, t)
	}
	return i, nil
}

// maxNested bounds how deep Walk goes, since it holds a directory for each level.
const maxNested = 4096

// Walk calls visit for every entry below a directory, each before what is below it.
// path holds the names from top on, to its end; it and what is in it is the caller's
// only until visit returns. A directory that is met twice is damage. The first error,
// from the file system or from visit, ends the walk.
func (f *FS) Walk(top *Inode, visit func(path []Entry, i *Inode) error) error {
	return f.walk(top, nil, map[uint32]bool{top.Number: true}, visit)
}

func (f *FS) walk(d *Inode, path []Entry, seen map[uint32]bool, visit func([]Entry, *Inode) error) error {
	if len(path) >= maxNested {
		return fmt.Errorf("ext4: directory %d: %d directories deep: %w", d.Number, maxNested, ErrUnsupported)
	}
	dots := 2 // . and .. come first
	for e, err := range d.Entries() {
		if err != nil {
			return err
		}
		if dots > 0 {
			dots--
			continue
		}
		i, err := f.open(e)
		if err != nil {
			return fmt.Errorf("ext4: directory %d: %w", d.Number, err)
		}
		p := append(path, e)
		if err := visit(p, i); err != nil {
			return err
		}
		if i.Type() != Directory {
			continue
		}
		if seen[i.Number] {
			return fmt.Errorf("ext4: %w", damaged("directory %d: %.100q is directory %d, which has another name", d.Number, e.Name, i.Number))
		}
		seen[i.Number] = true
		if err := f.checkParent(i, d); err != nil {
			return err
		}
		if err := f.walk(i, p, seen, visit); err != nil {
			return err
		}
	}
	return nil
}

// checkParent checks that ".." of a directory is the one that it was found in.
func (f *FS) checkParent(i, parent *Inode) error {
	e, err := i.Lookup([]byte(".."))
	if err == nil && e.Inode != parent.Number {
		err = fmt.Errorf("ext4: %w", damaged("directory %d: %q is inode %d, not %d", i.Number, "..", e.Inode, parent.Number))
	}
	return err
}
