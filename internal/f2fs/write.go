package f2fs

import (
	"bytes"
	"fmt"
	"maps"

	"keyway/internal/fstype"
)

// Flags of a checkpoint and of inodes that forbid writing in place.
const (
	cpOrphans  = 0x2
	cpError    = 0x8
	cpFsck     = 0x10
	cpDisabled = 0x1000

	flagImmutable = 0x10
	flagAppend    = 0x20
)

// MayWrite reads the superblock, the checkpoint and the inode again, and reports why
// blocks of the regular file must not be overwritten in place: the file system was not
// unmounted or has errors, or has a feature that forbids it; the file has its data
// elsewhere, is protected, or is not what it was when i was read. The error is
// ErrUnclean, fstype.ErrNoWrite, or what reading gave. A file system that was mounted after
// its last checkpoint, and has made none since, cannot be told from one that was not.
func (i *Inode) MayWrite() error {
	now, err := i.fs.mayWrite()
	if err != nil {
		return fmt.Errorf("f2fs: %w", err)
	}
	if err := i.mayWrite(now); err != nil {
		return fmt.Errorf("f2fs: inode %d: %w", i.Number, err)
	}
	return nil
}

// mayWrite returns the file system as it is now: that which f is.
func (f *FS) mayWrite() (*FS, error) {
	now := &FS{r: f.r, size: f.size}
	b := make([]byte, superSize)
	if err := f.read(b, superOffset); err != nil {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	if err := now.super(b); err != nil {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	flags, err := now.checkpoint()
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	switch {
	case now.uuid != f.uuid || now.main != f.main || now.nat != f.nat || now.blocks != f.blocks:
		return nil, fstype.Refuse("the file system is not the one that was opened")
	case flags&cpUnmounted == 0:
		return nil, fmt.Errorf("%w: unmount it, or mount and unmount it, first", ErrUnclean)
	case flags&(cpError|cpFsck) != 0:
		return nil, fstype.Refuse("errors were found while it was mounted; run fsck.f2fs first")
	case flags&cpDisabled != 0:
		return nil, fstype.Refuse("its checkpoints are disabled; mount it with checkpoint=enable first")
	case flags&cpOrphans != 0:
		return nil, fstype.Refuse("files that were deleted while open are still there; mount and unmount it first")
	case now.features&featReadOnly != 0:
		return nil, fstype.Refuse("it was made read-only")
	case now.features&featZoned != 0:
		return nil, fstype.Refuse("its zones are written from start to end")
	case !bytes.Equal(now.natBits, f.natBits) || !maps.Equal(now.journal, f.journal):
		return nil, fstype.Refuse("the file system was changed after it was opened")
	}
	return now, nil
}

func (i *Inode) mayWrite(fs *FS) error {
	if i.Type() != fstype.Regular {
		return fstype.Refuse("a %v has no contents", i.Type())
	}
	now, err := fs.Inode(i.Number)
	switch {
	case err != nil:
		return fstype.Refuse("it is not what it was when it was opened: %v", err)
	case !bytes.Equal(now.raw, i.raw):
		return fstype.Refuse("it was changed after it was opened")
	case i.Inline():
		return fstype.Refuse("its data is in the inode")
	case i.Verity():
		return fstype.Refuse("fs-verity protects it, and would refuse what was written")
	case i.Flags&flagImmutable != 0:
		return fstype.Refuse("it is immutable (chattr -i)")
	case i.Flags&flagAppend != 0:
		return fstype.Refuse("it is append-only (chattr -a)")
	case i.Flags&flagCompressed != 0:
		return fstype.Refuse("it is compressed")
	}
	return nil
}
