package volume

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"keyway/fscrypt"
	"keyway/internal/fstype"
)

// An Entry is one name in a directory, as a user sees it.
type Entry struct {
	Name  string // without the directory's key what Linux lists then
	Inode uint32
	Type  Type // Unknown if the file system does not keep it in directories
	NoKey bool // Name stands for one that needs a key

	raw fstype.Entry
}

// ReadDir returns the names in the directory f in the order of the medium, without
// "." and "..".
func (v *Volume) ReadDir(f *File) (all []Entry, err error) {
	n, err := f.namer()
	if err != nil {
		return nil, err
	}
	defer n.wipe()
	for raw, err := range f.in.Entries() {
		if err != nil {
			return nil, err
		}
		if dots(raw.Name) {
			continue
		}
		name, err := n.show(raw)
		if err != nil {
			return nil, f.wrap(fmt.Errorf("name of inode %d: %w", raw.Inode, err))
		}
		all = append(all, Entry{Name: name, Inode: raw.Inode, Type: raw.Type, NoKey: n.locked, raw: raw})
	}
	return all, nil
}

func dots(name []byte) bool { return string(name) == "." || string(name) == ".." }

// A namer shows and finds the names in one directory.
type namer struct {
	of     *File
	names  *fscrypt.Names // nil: not encrypted, or locked
	locked bool           // encrypted, and the key is not there
}

func (f *File) namer() (*namer, error) {
	if f.Type != Directory {
		return nil, f.wrap(fmt.Errorf("%w: a %v has no names", ErrType, f.Type))
	}
	n := &namer{of: f}
	if !f.Encrypted {
		return n, nil
	}
	c, err := f.opened()
	if errors.Is(err, ErrNoKey) {
		n.locked = true
		return n, nil
	}
	if err == nil {
		n.names, err = c.Names()
	}
	if err != nil {
		return nil, f.wrap(err)
	}
	return n, nil
}

func (n *namer) wipe() {
	if n.names != nil {
		n.names.Wipe()
	}
}

// show returns a name as a user sees it.
func (n *namer) show(e fstype.Entry) (string, error) {
	switch {
	case n.locked:
		name, err := fscrypt.NoKey(e.Hash, e.MinorHash, e.Name)
		if err != nil {
			return "", asDamage(err)
		}
		return name.String(), nil
	case n.names != nil:
		name, err := n.names.Decrypt(e.Name)
		if err != nil {
			return "", asDamage(err)
		}
		return string(name), nil
	}
	return string(e.Name), nil
}

// find returns the entry of a name as a user sees it.
func (n *namer) find(name string) (fstype.Entry, error) {
	matches := func(e fstype.Entry) bool { return string(e.Name) == name }
	switch {
	case n.locked:
		want, err := fscrypt.ParseNoKey(name)
		if err != nil {
			return fstype.Entry{}, n.of.noKey("names in")
		}
		matches = func(e fstype.Entry) bool {
			return e.Hash == want.Hash && e.MinorHash == want.MinorHash && want.Matches(e.Name)
		}
	case n.names != nil:
		want, err := n.names.Encrypt([]byte(name))
		if errors.Is(err, fscrypt.ErrNameTooLong) || errors.Is(err, fscrypt.ErrName) {
			return fstype.Entry{}, fmt.Errorf("%.100q %w: %v", name, ErrNotExist, err)
		}
		if err != nil {
			return fstype.Entry{}, err
		}
		matches = func(e fstype.Entry) bool { return bytes.Equal(e.Name, want) }
	}
	for e, err := range n.of.in.Entries() {
		if err != nil {
			return fstype.Entry{}, err
		}
		if !dots(e.Name) && matches(e) {
			return e, nil
		}
	}
	return fstype.Entry{}, n.of.wrap(fmt.Errorf("%.100q %w", name, ErrNotExist))
}

// asDamage makes what fscrypt refuses of a medium an ErrDamaged.
func asDamage(err error) error {
	var field *fscrypt.FieldError
	if errors.Is(err, fscrypt.ErrName) || errors.Is(err, fscrypt.ErrNameTooLong) || errors.As(err, &field) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// split returns the names of a path from the root.
func split(path string) (names []string) {
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}
