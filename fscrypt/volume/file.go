package volume

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"keyway/fscrypt"
)

// A File is an inode that is open. Close gives back the key that reading it took.
type File struct {
	Facts

	v       *Volume
	in      inode
	context fscrypt.Context // if Encrypted

	mu     sync.Mutex    // guards the rest
	crypt  *fscrypt.File // nil: not encrypted, or its key was not there when asked
	key    *contents     // of the contents; nil: not needed so far
	closed bool
}

// open makes a File of an inode that was found in a directory, or of the root.
func (v *Volume) open(in inode, dir *File) (*File, error) {
	f := &File{Facts: in.facts(), v: v, in: in}
	if f.Encrypted {
		b, err := in.EncryptionContext()
		if err == nil {
			f.context, err = fscrypt.ParseContext(b)
		}
		if err == nil {
			err = f.context.Policy.CheckOn(v.crit)
		}
		if err == nil && f.Casefolded && f.Type == Directory {
			err = f.context.Policy.CheckCasefold()
		}
		if errors.Is(err, ErrNotExist) {
			err = fmt.Errorf("%w: encrypted, and has no encryption context", ErrDamaged)
		}
		if err != nil {
			return nil, f.wrap(asDamage(err))
		}
	}
	if dir != nil && dir.Encrypted {
		switch f.Type {
		case Regular, Directory, Symlink:
			if !f.Encrypted || f.context.Policy != dir.context.Policy {
				return nil, f.wrap(fmt.Errorf("%w: its encryption policy is not that of its directory, inode %d: it was put there from outside", ErrDamaged, dir.Inode))
			}
		}
	}
	return f, nil
}

// wrap says which file an error is about. The end of a file is none.
func (f *File) wrap(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return fmt.Errorf("%s: inode %d: %w", f.v.info.Kind, f.Inode, err)
}

// Policy returns the encryption policy; false if the file is not encrypted.
func (f *File) Policy() (fscrypt.Policy, bool) { return f.context.Policy, f.Encrypted }

// Context returns what the inode stores for fscrypt; false if it is not encrypted.
func (f *File) Context() (fscrypt.Context, bool) { return f.context, f.Encrypted }

// HasKey reports whether the file is encrypted and its master key is there.
func (f *File) HasKey() bool {
	if !f.Encrypted {
		return false
	}
	_, err := f.opened()
	return err == nil
}

// KeyID returns the identity of the key of the contents; false if there is none, or
// its master key was not added.
func (f *File) KeyID() (fscrypt.KeyID, bool) {
	if !f.Encrypted || f.Type != Regular {
		return fscrypt.KeyID{}, false
	}
	c, err := f.opened()
	if err != nil {
		return fscrypt.KeyID{}, false
	}
	return c.KeyID(), true
}

// opened returns what fscrypt says of an encrypted file, once its key is there.
func (f *File) opened() (*fscrypt.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crypt != nil {
		return f.crypt, nil
	}
	m := f.v.master(f.context.Policy.Key)
	if m == nil {
		return nil, f.noKey("")
	}
	c, err := fscrypt.Open(m, f.v.crit, f.context, uint64(f.Inode))
	if err != nil {
		return nil, err
	}
	f.crypt = c
	return c, nil
}

// noKey is ErrNoKey for something of the file.
func (f *File) noKey(what string) error {
	if what != "" {
		what += " "
	}
	return &NoKeyError{Of: fmt.Sprintf("%s%v %d", what, f.Type, f.Inode), Spec: f.context.Policy.Key}
}

// Readlink returns the target of a symbolic link: of an encrypted one without its key
// what Linux shows then.
func (f *File) Readlink() (string, error) {
	if f.Type != Symlink {
		return "", f.wrap(fmt.Errorf("%w: a %v has no target", ErrType, f.Type))
	}
	raw, err := f.in.Target()
	if err != nil || !f.Encrypted {
		return string(raw), err
	}
	c, err := f.opened()
	if errors.Is(err, ErrNoKey) {
		b, err := fscrypt.EncryptedTarget(raw)
		if err != nil {
			return "", f.wrap(asDamage(err))
		}
		n, err := fscrypt.NoKey(0, 0, b)
		if err != nil {
			return "", f.wrap(asDamage(err))
		}
		return n.String(), nil
	}
	if err != nil {
		return "", f.wrap(err)
	}
	names, err := c.Names()
	if err != nil {
		return "", f.wrap(err)
	}
	defer names.Wipe()
	target, err := names.DecryptTarget(raw)
	if err != nil {
		return "", f.wrap(asDamage(err))
	}
	return string(target), nil
}
