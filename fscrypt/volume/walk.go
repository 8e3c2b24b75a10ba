package volume

import (
	"errors"
	"fmt"
	"strings"

	"keyway/internal/fstype"
)

// maxNested bounds how deep Walk goes, since it holds a directory for each level.
const maxNested = 4096

// Root returns the root directory.
func (v *Volume) Root() (*File, error) {
	in, err := v.fs.inode(0)
	if errors.Is(err, fstype.ErrUnused) {
		err = fmt.Errorf("%w: the root: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	f, err := v.open(in, nil)
	if err == nil && f.Type != Directory {
		err = f.wrap(fmt.Errorf("%w: the root is a %v", ErrDamaged, f.Type))
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Open opens the file of an entry that ReadDir of the directory dir returned.
func (v *Volume) Open(dir *File, e Entry) (*File, error) {
	in, err := v.fs.open(e.raw)
	if errors.Is(err, fstype.ErrUnused) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	return v.open(in, dir)
}

// Lookup finds a file by its path from the root, with or without a slash before it.
// Names are as ReadDir returns them. Symbolic links are not followed, so that one in
// the middle is ErrType. ErrNoKey: a name is not one that a directory without its key
// shows.
func (v *Volume) Lookup(path string) (*File, error) { return v.lookup(path, false) }

// Follow is Lookup that follows symbolic links, also the last one; a target that
// begins with a slash is from the root of the volume. ErrNoKey: the target of one is
// encrypted under a key that was not added.
func (v *Volume) Follow(path string) (*File, error) { return v.lookup(path, true) }

// maxLinks is how many symbolic links Follow follows, as Linux does.
const maxLinks = 40

func (v *Volume) lookup(path string, follow bool) (*File, error) {
	root, err := v.Root()
	if err != nil {
		return nil, err
	}
	at := []*File{root} // and what leads to it
	links := 0
	for names := split(path); len(names) > 0; {
		name, here := names[0], at[len(at)-1]
		names = names[1:]
		if name == ".." && here.Type == Directory {
			at = at[:max(1, len(at)-1)]
			continue
		}
		f, err := v.step(here, name)
		if err != nil {
			return nil, err
		}
		if !follow || f.Type != Symlink {
			at = append(at, f)
			continue
		}
		if links++; links > maxLinks {
			return nil, f.wrap(fmt.Errorf("more than %d symbolic links on the way", maxLinks))
		}
		target, err := f.target()
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(target, "/") {
			at = at[:1]
		}
		names = append(split(target), names...)
	}
	return at[len(at)-1], nil
}

// target is Readlink of a link whose key must be there.
func (f *File) target() (string, error) {
	if f.Encrypted {
		if _, err := f.opened(); errors.Is(err, ErrNoKey) {
			return "", f.wrap(f.noKey("target of"))
		}
	}
	return f.Readlink()
}

// step finds a name in the directory f.
func (v *Volume) step(f *File, name string) (*File, error) {
	n, err := f.namer()
	if err != nil {
		return nil, err
	}
	defer n.wipe()
	e, err := n.find(name)
	if err != nil {
		return nil, err
	}
	return v.Open(f, Entry{raw: e})
}

// Walk calls visit for every file below the directory top, each before what is below
// it. path is from top on, without a slash before it. f is closed when visit and what
// is below it are done. A directory that is met twice is damage. The first error, from
// the volume or from visit, ends the walk.
func (v *Volume) Walk(top *File, visit func(path string, f *File) error) error {
	return v.walk(top, "", 0, map[uint32]bool{top.Inode: true}, visit)
}

func (v *Volume) walk(dir *File, path string, depth int, seen map[uint32]bool, visit func(string, *File) error) error {
	if depth >= maxNested {
		return dir.wrap(fmt.Errorf("%d directories deep: %w", depth, ErrNotSupported))
	}
	all, err := v.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		f, err := v.Open(dir, e)
		if err != nil {
			return dir.wrap(err)
		}
		at := strings.TrimPrefix(path+"/"+e.Name, "/")
		err = visit(at, f)
		if err == nil && f.Type == Directory {
			switch {
			case seen[f.Inode]:
				err = f.wrap(fmt.Errorf("%w: a directory with two names", ErrDamaged))
			default:
				seen[f.Inode] = true
				if err = dir.parentOf(f); err == nil {
					err = v.walk(f, at, depth+1, seen, visit)
				}
			}
		}
		if err := errors.Join(err, f.Close(v.ctx)); err != nil {
			return err
		}
	}
	return nil
}

// parentOf checks that ".." of a directory is the one that it was found in.
func (f *File) parentOf(child *File) error {
	for e, err := range child.in.Entries() {
		if err != nil {
			return err
		}
		if string(e.Name) == ".." {
			if e.Inode != f.Inode {
				return child.wrap(fmt.Errorf("%w: its parent is inode %d, and it was found in %d", ErrDamaged, e.Inode, f.Inode))
			}
			return nil
		}
	}
	return child.wrap(fmt.Errorf("%w: a directory without a parent", ErrDamaged))
}
