package ext4

import (
	"bytes"
	"errors"
	"fmt"
)

// inlineData returns the data of a file that has it in its inode: where else the
// block map is, and then in an attribute. It may be less than Size: then zeros follow.
func (i *Inode) inlineData() ([]byte, error) {
	if i.fastSymlink() {
		return bytes.Clone(i.data[:i.Size]), nil
	}
	more, err := i.attr(AttrSystem, "data")
	if errors.Is(err, ErrNotExist) {
		return nil, damaged("inline data: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("inline data: %w", err)
	}
	b := append(i.data[:len(i.data):len(i.data)], more...)
	if i.Size <= int64(len(b)) {
		return b[:i.Size], nil
	}
	// A regular file goes on with zeros, as Linux reads it and mke2fs writes it.
	if i.Type() != Regular {
		return nil, damaged("inline data: %d bytes of %d", len(b), i.Size)
	}
	return b, nil
}

// inline goes through the names of a directory in its inode: the parent, then
// entries in the block map and in the attribute, none across both.
func (d *dir) inline() error {
	const head = 4
	b, err := d.inlineData()
	if err != nil {
		return err
	}
	if len(b) < len(d.data) {
		return damaged("inline data: a directory of %d bytes", len(b))
	}
	parent := le32(b, 0)
	if parent > d.fs.inodes || parent < d.fs.firstInode && parent != Root {
		return damaged("inline data: the parent is inode %d", parent)
	}
	d.give(Entry{Name: []byte("."), Inode: d.Number, Type: Directory})
	d.give(Entry{Name: []byte(".."), Inode: parent, Type: Directory})
	for _, part := range [][]byte{b[head:len(d.data)], b[len(d.data):]} {
		if err := d.names(part, 0); err != nil {
			return fmt.Errorf("inline data: %w", err)
		}
	}
	return nil
}

// Target returns the target of a symbolic link as it is on the medium: of an
// encrypted one two bytes of length and ciphertext.
func (i *Inode) Target() ([]byte, error) {
	if i.Type() != Symlink {
		return nil, i.wrap(fmt.Errorf("is a %v, not a symbolic link", i.Type()))
	}
	b := make([]byte, i.Size) // at most a block
	if _, err := i.readTo(b, 0, i.Size); err != nil {
		return nil, i.wrap(err)
	}
	if !i.Encrypted() && bytes.IndexByte(b, 0) >= 0 {
		return nil, i.wrap(damaged("a target with a zero byte"))
	}
	return b, nil
}
