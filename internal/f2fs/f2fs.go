// Package f2fs reads f2fs file systems as package ext4 reads those of that kind: it
// tells where the data of a file lies and gives names, extended attributes and the
// facts of inodes as they are on the medium, and never decrypts.
//
// It reads what one device holds after a checkpoint: blocks of 4 KiB, inline data,
// directories and attributes, trees of nodes, the journal of the node table. Files
// that are compressed, several devices and what was synced after the last checkpoint
// are refused by name.
//
// Images are untrusted input. Every number is bounded before it is used, and a node
// must say itself that it is the one that was looked for. f2fs has checksums of the
// checkpoint, and of the superblock and of inodes if it was made with them; all that
// are there are verified. Blocks of files lie in the main area only.
//
// Nothing is held but the superblock, the checkpoint's map of the node table and its
// journal. An FS and its inodes may be used by several goroutines.
//
// Sources: the f2fs documentation of Linux (filesystems/f2fs), and the behaviour of
// Linux 6.12 where it is silent.
package f2fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"keyway/internal/fstype"
)

// Errors, compared with errors.Is. Errors of the device come through as they are.
var (
	// ErrNotF2FS: there is no superblock.
	ErrNotF2FS = errors.New("no f2fs file system")
	// ErrUnsupported: well formed as far as one can tell, with something that is not
	// built here.
	ErrUnsupported = fstype.ErrUnsupported
	// ErrDamaged: a checksum or a rule of the format does not hold.
	ErrDamaged = fstype.ErrDamaged
	// ErrUnclean: it was not unmounted, so files may have been synced after the last
	// checkpoint.
	ErrUnclean = errors.New("was not unmounted")
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
	// IgnoreUnclean reads the last checkpoint of a file system that was not unmounted:
	// what was synced later is not seen.
	IgnoreUnclean bool
}

// Sizes of the format, in bytes.
const (
	BlockSize = 4096
	blockBits = 12

	superOffset = 1024
	superSize   = 3072
	magic       = 0xf2f52010
)

// FS is a file system that was opened. It owns nothing that must be closed.
type FS struct {
	r    io.ReaderAt
	size int64 // bytes of the device

	uuid     [16]byte
	label    string
	unclean  bool
	features uint32
	seed     uint32 // of checksums of inodes
	blocks   uint64
	perSeg   uint32 // blocks
	cp, nat  uint32 // blocks at which the areas begin
	main     uint32
	mainEnd  uint64
	natSegs  uint32 // of one copy
	payload  uint32 // blocks that follow a checkpoint
	root     uint32

	natBits []byte // which copy of each block of the node table
	journal map[uint32]natEntry
}

// Features.
const (
	featEncrypt    = 0x1
	featZoned      = 0x2
	featExtraAttr  = 0x8
	featInodeSum   = 0x20
	featFlexInline = 0x40
	featVerity     = 0x400
	featSuperSum   = 0x800
	featCasefold   = 0x1000
	featCompress   = 0x2000
	featReadOnly   = 0x4000
	featKnown      = 0x7fff
)

// UUID is that of the file system: fscrypt derives keys from it.
func (f *FS) UUID() [16]byte { return f.uuid }

// Root is the inode of the root directory.
func (f *FS) Root() uint32 { return f.root }

// MaxFileSize is the size up to which Linux lets a file grow; fscrypt derives from it
// how many bytes a DUN has. What an inode itself can address does not count, since
// more of its room may be taken one day.
func (f *FS) MaxFileSize() int64 {
	return (2*nodeAddrs + 2*nodeAddrs*nodeAddrs + nodeAddrs*nodeAddrs*nodeAddrs) << blockBits
}

// Open reads the superblock and the newer valid checkpoint of a file system on r, which
// has size bytes and stays the caller's. The device must hold the whole file system.
func Open(r io.ReaderAt, size int64, o Options) (*FS, error) {
	f := &FS{r: r, size: size}
	if size < 2*BlockSize {
		return nil, fmt.Errorf("f2fs: a device of %d bytes: %w", size, ErrNotF2FS)
	}
	b := make([]byte, superSize)
	if err := f.read(b, superOffset); err != nil {
		return nil, fmt.Errorf("f2fs: superblock: %w", err)
	}
	if err := f.super(b); err != nil {
		return nil, fmt.Errorf("f2fs: superblock: %w", err)
	}
	flags, err := f.checkpoint()
	if err != nil {
		return nil, fmt.Errorf("f2fs: checkpoint: %w", err)
	}
	f.unclean = flags&cpUnmounted == 0
	if f.unclean && !o.IgnoreUnclean {
		return nil, fmt.Errorf("f2fs: %w: mount it once, or read the last checkpoint without what was synced later", ErrUnclean)
	}
	return f, nil
}

func (f *FS) super(b []byte) error {
	if le32(b, 0) != magic {
		return ErrNotF2FS
	}
	f.features = le32(b, 0x884)
	if f.features&featSuperSum != 0 {
		at := le32(b, 0x20)
		if at != superSize-4 {
			return damaged("a checksum at byte %d", at)
		}
		if got, want := crc(magic, b[:at]), le32(b, int(at)); got != want {
			return damaged("checksum %08x, computed %08x", want, got)
		}
	}
	if unknown := f.features &^ featKnown; unknown != 0 {
		return fmt.Errorf("features %#x: %w", unknown, ErrUnsupported)
	}
	if f.features&featReadOnly != 0 && f.features&featCompress != 0 {
		return fmt.Errorf("compressed and read-only: %w", ErrUnsupported)
	}
	if n := le32(b, 0x10); n != blockBits {
		return fmt.Errorf("blocks of 2^%d bytes: %w", n, ErrUnsupported)
	}
	if n := le32(b, 0x14); n != 9 {
		return damaged("2^%d blocks in a segment", n)
	}
	if b[0x899] != 0 {
		return fmt.Errorf("several devices: %w", ErrUnsupported)
	}
	f.perSeg = 1 << 9
	copy(f.uuid[:], b[0x6c:])
	f.label = labelOf(b)
	f.seed = crc(^uint32(0), f.uuid[:])
	f.blocks = binary.LittleEndian.Uint64(b[0x24:])
	if f.blocks == 0 || f.blocks > uint64(f.size)>>blockBits || f.blocks > 1<<32-16 {
		return damaged("%d blocks on a device of %d bytes: is it whole?", f.blocks, f.size)
	}
	// The areas follow each other without gaps.
	next := uint64(le32(b, 0x48))
	for _, a := range []struct {
		name       string
		segs, addr int
	}{{"checkpoint", 0x34, 0x4c}, {"SIT", 0x38, 0x50}, {"NAT", 0x3c, 0x54}, {"SSA", 0x40, 0x58}, {"main", 0x44, 0x5c}} {
		segs, at := le32(b, a.segs), le32(b, a.addr)
		if uint64(at) != next || segs == 0 {
			return damaged("the %s area has %d segments at block %d, want block %d", a.name, segs, at, next)
		}
		if next += uint64(segs) * uint64(f.perSeg); next > f.blocks {
			return damaged("the %s area ends at block %d of %d", a.name, next, f.blocks)
		}
	}
	f.cp, f.nat, f.main, f.mainEnd = le32(b, 0x4c), le32(b, 0x54), le32(b, 0x5c), next
	if n := le32(b, 0x34); n != 2 {
		return damaged("%d segments of checkpoints", n)
	}
	if n := le32(b, 0x3c); n%2 != 0 || n > 1<<16 {
		return damaged("%d segments of node table", n)
	}
	f.natSegs = le32(b, 0x3c) / 2
	if f.payload = le32(b, 0x680); f.payload > f.perSeg-8 {
		return damaged("%d more blocks of checkpoint", f.payload)
	}
	f.root = le32(b, 0x60)
	return nil
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

func (f *FS) block(n uint64) ([]byte, error) {
	b := make([]byte, BlockSize)
	if err := f.read(b, int64(n)<<blockBits); err != nil {
		return nil, fmt.Errorf("block %d: %w", n, err)
	}
	return b, nil
}

// inMain reports whether a block may hold a node or data.
func (f *FS) inMain(block uint32) bool { return block >= f.main && uint64(block) < f.mainEnd }

// crc continues a CRC-32 without the inversions at both ends.
func crc(c uint32, p []byte) uint32 { return ^crc32.Update(^c, crc32.IEEETable, p) }

func le16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func le32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
