package ext4

import (
	"fmt"
	"strings"

	"keyway/internal/fstype"
)

// Flags of inodes that forbid writing in place, or make it mean something else.
const (
	flagCompr      = 0x4
	flagImmutable  = 0x10
	flagAppend     = 0x20
	flagJournalled = 0x4000
)

// roWritable are the features that who writes to blocks of files in place need not
// know: he changes neither metadata nor what is counted. Blocks that files share are
// not among them, nor what is unknown.
const roWritable = roSparseSuper | 0x2 /* large_file */ | roHugeFile | roGDTCsum | 0x20 /* dir_nlink */ | 0x40 /* extra_isize */ |
	0x100 /* quota */ | roBigalloc | roMetadataCsum | 0x2000 /* project */ | roVerity

// Sequence numbers of multiple mount protection.
const (
	mmpMagic = 0x4d4d50
	mmpClean = 0xff4d4d50
)

// MayWrite reads the superblock and the inode again, and reports why blocks of the
// regular file must not be overwritten in place: the file system is in use as far as
// can be told, was not unmounted or has errors, or has a feature that forbids it; the
// file has its data elsewhere, is protected, or is not what it was when i was read.
// The error is ErrJournal, fstype.ErrNoWrite, or what reading gave. Mounting a file system
// read-only leaves no trace in it.
func (i *Inode) MayWrite() error {
	if err := i.fs.mayWrite(); err != nil {
		return fmt.Errorf("ext4: %w", err)
	}
	if err := i.mayWrite(); err != nil {
		return fmt.Errorf("ext4: inode %d: %w", i.Number, err)
	}
	return nil
}

func (f *FS) mayWrite() error {
	b := make([]byte, superSize)
	if err := f.read(b, superOffset); err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	var s super
	if err := s.parse(b, f.size); err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	state := le16(b, 0x3a)
	switch unknown := s.ro &^ roWritable; {
	case s.uuid != f.uuid || s.blocks != f.blocks || s.blockSize != f.blockSize || s.inodesPer != f.inodesPer:
		return fstype.Refuse("the file system is not the one that was opened")
	case s.incompat&incompatRecover != 0:
		return fmt.Errorf("%w: it is mounted, or was not unmounted; mount and unmount it, or run e2fsck, first", ErrJournal)
	case state&1 == 0:
		return fstype.Refuse("it is mounted, or was not unmounted; unmount it, or run e2fsck, first")
	case state&2 != 0:
		return fstype.Refuse("errors were found while it was mounted; run e2fsck first")
	case state&4 != 0 || le32(b, 0xe8) != 0:
		return fstype.Refuse("files that were deleted while open are still there; mount and unmount it, or run e2fsck, first")
	case unknown != 0:
		return fstype.Refuse("feature %s", strings.Join(featureNames(unknown, roNames, 'R'), ", "))
	case s.incompat&incompatMMP != 0:
		return f.unmounted(wide(le32(b, 0x168), le32(b, 0x16c)))
	}
	return nil
}

// unmounted asks the block by which hosts tell each other that they have it mounted.
func (f *FS) unmounted(block uint64) error {
	if block <= uint64(f.firstBlock) || block >= f.blocks {
		return damaged("block %d of mount protection", block)
	}
	b := make([]byte, 8)
	if err := f.read(b, int64(block)<<f.blockBits); err != nil {
		return fmt.Errorf("block %d: %w", block, err)
	}
	switch seq := le32(b, 4); {
	case le32(b, 0) != mmpMagic:
		return damaged("block %d is not one of mount protection", block)
	case seq != mmpClean:
		return fstype.Refuse("mount protection says that a host has it mounted, or checks it (sequence %08x)", seq)
	}
	return nil
}

func (i *Inode) mayWrite() error {
	if i.Type() != fstype.Regular {
		return fstype.Refuse("a %v has no contents", i.Type())
	}
	now, err := i.fs.inode(i.Number)
	if err != nil {
		// Its own text says which inode.
		return fstype.Refuse("it is not what it was when it was opened: %v", err)
	}
	if now.Generation != i.Generation || now.Mode != i.Mode || now.Size != i.Size || now.Sectors != i.Sectors ||
		now.data != i.data || !now.Changed.Equal(i.Changed) || now.Flags != i.Flags {
		return fstype.Refuse("it was changed after it was opened")
	}
	for _, x := range []struct {
		flag uint32
		why  string
	}{
		{flagInlineData, "its data is in the inode"},
		{flagVerity, "fs-verity protects it, and would refuse what was written"},
		{flagImmutable, "it is immutable (chattr -i)"},
		{flagAppend, "it is append-only (chattr -a)"},
		{flagCompr, "it is compressed"},
		{flagJournalled, "its data goes through the journal (chattr -j)"},
	} {
		if i.Flags&x.flag != 0 {
			return fstype.Refuse("%s", x.why)
		}
	}
	return nil
}
