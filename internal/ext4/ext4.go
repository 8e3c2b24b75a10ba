// Package ext4 reads ext4 file systems, and the ext2 and ext3 that came before. It
// tells where the data of a file lies and gives names, extended attributes and the
// facts of inodes as they are on the medium; it never decrypts, so that an upper
// layer can send requests with key and data unit number to the device itself.
//
// Images are untrusted input. Every number is bounded before it is used, every
// checksum that the file system has is verified, and what breaks a rule of the
// format is refused with ErrDamaged and its place. Extents may neither overlap,
// leave the file system, nor lie where the file system keeps its own tables: who
// writes to a file in place cannot be led to write there. Without metadata_csum a
// damage that obeys all rules cannot be seen.
//
// Nothing is held but the superblock, the last group descriptor and, once a file was
// mapped, where metadata lies (16 bytes for each run of it, at most 16 MiB).
// Directories and extents are read as they are asked for.
//
// An FS and its inodes may be used by several goroutines. What changes on the device
// under a reader is read as damage at best: the file system must not be in use.
//
// Sources: the ext4 documentation of Linux (filesystems/ext4), and the behaviour of
// Linux 6.12 and e2fsprogs 1.47 where it is silent.
package ext4

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"keyway/internal/fstype"
)

// Errors, compared with errors.Is. Errors of the device come through as they are.
var (
	// ErrNotExt4: there is no superblock.
	ErrNotExt4 = errors.New("no ext2, ext3 or ext4 file system")
	// ErrUnsupported: well formed as far as one can tell, with something that is not
	// built here.
	ErrUnsupported = fstype.ErrUnsupported
	// ErrDamaged: a checksum or a rule of the format does not hold.
	ErrDamaged = fstype.ErrDamaged
	// ErrJournal: changes are in the journal that are not in their places.
	ErrJournal = errors.New("the journal was not replayed")
	// ErrUnused: no file has this inode.
	ErrUnused = fstype.ErrUnused
	// ErrNotExist: no such name or attribute.
	ErrNotExist = fstype.ErrNotExist
	// ErrEncrypted: what was asked for needs a key.
	ErrEncrypted = fstype.ErrEncrypted
)

func damaged(format string, args ...any) error { return fstype.Damaged(format, args...) }

// Options of Open. The zero value is the strict one.
type Options struct {
	// IgnoreJournal reads a file system whose journal was not replayed: metadata may
	// be that of an earlier time, and may not fit together.
	IgnoreJournal bool
}

// FS is a file system that was opened. It owns nothing that must be closed.
type FS struct {
	r    io.ReaderAt
	size int64 // bytes of the device
	super
	last atomic.Pointer[group] // the group of the inode read last
	zone struct {
		sync.Mutex // guards the rest
		built      bool
		runs       []zoneRun // sorted, apart from each other
	}
}

// Open reads the superblock of a file system on r, which has size bytes and stays
// the caller's. The device must hold the whole file system.
func Open(r io.ReaderAt, size int64, o Options) (*FS, error) {
	f := &FS{r: r, size: size}
	if size < superOffset+superSize {
		return nil, fmt.Errorf("ext4: a device of %d bytes: %w", size, ErrNotExt4)
	}
	raw := make([]byte, superSize)
	if err := f.read(raw, superOffset); err != nil {
		return nil, fmt.Errorf("ext4: superblock: %w", err)
	}
	if err := f.super.parse(raw, size); err != nil {
		return nil, fmt.Errorf("ext4: superblock: %w", err)
	}
	if f.incompat&incompatRecover != 0 && !o.IgnoreJournal {
		return nil, fmt.Errorf("ext4: %w: mount the file system once or run e2fsck, or read it as it is at the risk of old or torn metadata", ErrJournal)
	}
	return f, nil
}

// read fills p from byte off of the device.
func (f *FS) read(p []byte, off int64) error {
	if off < 0 || int64(len(p)) > f.size || off > f.size-int64(len(p)) {
		return damaged("bytes %d to %d are outside of the device of %d bytes", off, off+int64(len(p)), f.size)
	}
	n, err := f.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d: %w", len(p), off, err)
}

// block reads a block of metadata, which must be one of the file system.
func (f *FS) block(n uint64) ([]byte, error) {
	if !f.valid(n, 1) {
		return nil, damaged("block %d is not one of the file system (%d to %d)", n, f.firstBlock+1, f.blocks-1)
	}
	b := make([]byte, f.blockSize)
	if err := f.read(b, int64(n)<<f.blockBits); err != nil {
		return nil, fmt.Errorf("block %d: %w", n, err)
	}
	return b, nil
}

// valid reports whether n blocks from first on are behind the superblock and within
// the file system.
func (f *FS) valid(first, n uint64) bool {
	return first > uint64(f.firstBlock) && first < f.blocks && n <= f.blocks-first
}
