package ext4

import (
	"fmt"
	"time"

	"keyway/internal/fstype"
)

// Root is the inode of the root directory.
const Root = 2

// A Type is the kind of a file, numbered as in directory entries.
type Type = fstype.Type

// The types of files.
const (
	Unknown     = fstype.Unknown
	Regular     = fstype.Regular
	Directory   = fstype.Directory
	CharDevice  = fstype.CharDevice
	BlockDevice = fstype.BlockDevice
	FIFO        = fstype.FIFO
	Socket      = fstype.Socket
	Symlink     = fstype.Symlink
)

// Flags of inodes that change how one is read.
const (
	flagEncrypt    = 0x800
	flagIndex      = 0x1000
	flagHuge       = 0x40000
	flagExtents    = 0x80000
	flagVerity     = 0x100000
	flagEAInode    = 0x200000
	flagInlineData = 0x10000000
	flagCasefold   = 0x40000000
)

// An Inode is a checked inode. It is not changed after it was read.
type Inode struct {
	Number     uint32
	Generation uint32
	Mode       uint16 // permissions and, in the upper four bits, the type
	UID, GID   uint32
	Links      uint16
	Size       int64  // bytes; of an encrypted file that of the plaintext
	Sectors    uint64 // of 512 bytes, that were allocated to it
	Flags      uint32 // as on the medium
	// Major and Minor are the numbers of a device.
	Major, Minor                         uint32
	Accessed, Modified, Changed, Created time.Time // Created is zero in inodes of 128 bytes

	fs    *FS
	seed  uint32   // of checksums of its blocks
	data  [60]byte // block map, extents, or data
	attrs []byte   // of the inode itself
	acl   uint64   // block of further attributes, or 0
}

// Type returns the kind of the file.
func (i *Inode) Type() Type { return fstype.TypeOf(i.Mode) }

// Encrypted reports whether fscrypt encrypts the contents of the file or symbolic
// link, or the names in the directory.
func (i *Inode) Encrypted() bool { return i.Flags&flagEncrypt != 0 }

// Casefolded reports whether lookups in the directory ignore case; here they do not.
func (i *Inode) Casefolded() bool { return i.Flags&flagCasefold != 0 }

// Verity reports whether fs-verity protects the file: a Merkle tree follows behind
// its size. It is not verified here.
func (i *Inode) Verity() bool { return i.Flags&flagVerity != 0 }

// Inline reports whether the data is in the inode and has no blocks to map.
func (i *Inode) Inline() bool { return i.Flags&flagInlineData != 0 || i.fastSymlink() }

// Inode reads an inode that is in use: that of the root, or one that is not reserved
// for the file system itself.
func (f *FS) Inode(n uint32) (*Inode, error) {
	i, err := f.file(n)
	if err != nil {
		return nil, fmt.Errorf("ext4: %w", err)
	}
	return i, nil
}

// file reads the inode of a file; errors name it.
func (f *FS) file(n uint32) (*Inode, error) {
	if n != Root && (n < f.firstInode || n > f.inodes) {
		return nil, damaged("inode %d: is not one of a file (%d, %d to %d)", n, Root, f.firstInode, f.inodes)
	}
	i, err := f.inode(n)
	if err != nil {
		return nil, err
	}
	if i.Flags&flagEAInode != 0 {
		return nil, damaged("inode %d: holds an extended attribute, not a file", n)
	}
	return i, nil
}

// inode reads any inode, of the file system's own files too; errors name it.
func (f *FS) inode(n uint32) (*Inode, error) {
	if n == 0 || n > f.inodes {
		return nil, damaged("inode %d: there are %d", n, f.inodes)
	}
	g, err := f.group((n - 1) / f.inodesPer)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", n, err)
	}
	k := (n - 1) % f.inodesPer
	if k >= g.used {
		return nil, fmt.Errorf("inode %d: %w", n, ErrUnused)
	}
	raw := make([]byte, f.inodeSize)
	if err := f.read(raw, int64(g.inodeTable)<<f.blockBits+int64(k)*int64(f.inodeSize)); err != nil {
		return nil, fmt.Errorf("inode %d: %w", n, err)
	}
	i := &Inode{fs: f, Number: n}
	if err := i.parse(raw); err != nil {
		return nil, fmt.Errorf("inode %d: %w", n, err)
	}
	return i, nil
}

func (i *Inode) parse(b []byte) error {
	f := i.fs
	i.Generation = le32(b, 0x64)
	i.seed = crc32le(crc32le(f.seed, i.Number), i.Generation)
	extra := 0
	if len(b) > 128 {
		extra = int(le16(b, 0x80))
	}
	i.Mode, i.Links, i.Flags = le16(b, 0), le16(b, 0x1a), le32(b, 0x20)
	if i.Mode == 0 && i.Links == 0 && allZero(b) {
		return ErrUnused
	}
	if f.checksums() {
		want, got := i.checksum(b, extra)
		if want != got {
			return damaged("checksum %08x, computed %08x", want, got)
		}
	}
	if i.Links == 0 {
		return ErrUnused
	}
	if extra > len(b)-128 || extra%4 != 0 {
		return damaged("%d bytes of extra fields in an inode of %d", extra, len(b))
	}
	i.attrs = b[128+extra:]
	if len(b) == 128 {
		i.attrs = nil
	}
	copy(i.data[:], b[0x28:])
	i.UID, i.GID = uint32(le16(b, 2))|uint32(le16(b, 0x78))<<16, uint32(le16(b, 0x18))|uint32(le16(b, 0x7a))<<16
	i.acl = uint64(le32(b, 0x68))
	if f.incompat&incompat64bit != 0 {
		i.acl |= uint64(le16(b, 0x76)) << 32
	}
	i.times(b, extra)
	if err := i.sizes(b); err != nil {
		return err
	}
	if t := i.Type(); t == CharDevice || t == BlockDevice {
		if old := le32(i.data[:], 0); old != 0 {
			i.Major, i.Minor = old>>8&0xff, old&0xff
		} else {
			dev := le32(i.data[:], 4)
			i.Major, i.Minor = dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
		}
	}
	return i.rules()
}

// checksum returns the checksum in an inode of extra bytes of further fields, and
// what it should be.
func (i *Inode) checksum(b []byte, extra int) (want, got uint32) {
	want = uint32(le16(b, 0x7c))
	got = crc(crc(crc(i.seed, b[:0x7c]), zeros[:2]), b[0x7e:128])
	if len(b) == 128 {
		return want, got & 0xffff
	}
	got = crc(got, b[128:0x82])
	if extra < 4 { // the upper half has no place
		return want, crc(got, b[0x82:]) & 0xffff
	}
	return want | uint32(le16(b, 0x82))<<16, crc(crc(got, zeros[:2]), b[0x84:])
}

func (i *Inode) times(b []byte, extra int) {
	at := func(lo, hi int) time.Time {
		sec, nsec := int64(int32(le32(b, lo))), int64(0)
		if hi+4 <= 128+extra { // two more bits of the seconds, and nanoseconds
			x := le32(b, hi)
			sec, nsec = sec+int64(x&3)<<32, int64(x>>2)
		}
		return time.Unix(sec, nsec).UTC()
	}
	i.Accessed, i.Changed, i.Modified = at(0x8, 0x8c), at(0xc, 0x84), at(0x10, 0x88)
	if extra >= 0x94-128 {
		i.Created = at(0x90, 0x94)
	}
}

// sizes takes the size and the count of sectors.
func (i *Inode) sizes(b []byte) error {
	f := i.fs
	size := uint64(le32(b, 4))
	if t := i.Type(); t == Regular || t == Directory && f.incompat&incompatLargeDir != 0 {
		size = wide(le32(b, 4), le32(b, 0x6c))
	}
	// The rule of files with extents; what pointers can reach is less.
	if limit := uint64(1<<32-1) << f.blockBits; size > limit {
		return damaged("a size of %d bytes; no more than %d are possible", size, limit)
	}
	i.Size = int64(size)
	i.Sectors = uint64(le32(b, 0x1c))
	if f.ro&roHugeFile != 0 {
		i.Sectors |= uint64(le16(b, 0x74)) << 32
		if i.Flags&flagHuge != 0 {
			i.Sectors <<= f.blockBits - 9
		}
	}
	return nil
}

// rules checks what must hold between the fields.
func (i *Inode) rules() error {
	f := i.fs
	if i.Type() == Unknown {
		return damaged("mode %06o has no type", i.Mode)
	}
	for _, r := range []struct {
		flag    uint32
		name    string
		feature bool
	}{
		{flagEncrypt, "encrypted", f.incompat&incompatEncrypt != 0},
		{flagExtents, "mapped by extents", f.incompat&incompatExtents != 0},
		{flagInlineData, "inline data", f.incompat&incompatInlineData != 0},
		{flagEAInode, "an extended attribute", f.incompat&incompatEAInode != 0},
		{flagCasefold, "casefolded", f.incompat&incompatCasefold != 0},
		{flagVerity, "verity", f.ro&roVerity != 0},
	} {
		if i.Flags&r.flag != 0 && !r.feature {
			return damaged("is %s, a feature that the file system does not have", r.name)
		}
	}
	if i.Flags&flagInlineData != 0 {
		if i.Flags&(flagEncrypt|flagExtents) != 0 {
			return damaged("has inline data together with flags %08x", i.Flags&(flagEncrypt|flagExtents))
		}
		if len(i.attrs) == 0 {
			return damaged("has inline data and no room for attributes")
		}
	}
	if i.acl != 0 && !f.valid(i.acl, 1) {
		return damaged("attributes: block %d is not one of the file system", i.acl)
	}
	switch i.Type() {
	case Directory:
		if i.Size == 0 || i.Flags&flagInlineData == 0 && i.Size%int64(f.blockSize) != 0 {
			return damaged("a directory of %d bytes", i.Size)
		}
		if i.Flags&flagIndex != 0 && (i.Flags&flagInlineData != 0 || f.compat&compatDirIndex == 0) {
			return damaged("a directory with an index that cannot be")
		}
	case Symlink:
		if i.Size == 0 || i.Size > int64(f.blockSize) || i.fastSymlink() && i.Size >= int64(len(i.data)) {
			return damaged("a symbolic link of %d bytes", i.Size)
		}
	}
	return nil
}

// fastSymlink reports whether the target is where else the block map is.
func (i *Inode) fastSymlink() bool {
	if i.Type() != Symlink || i.Flags&flagInlineData != 0 {
		return false
	}
	if i.fs.incompat&incompatEAInode != 0 { // then sectors count attributes too
		return i.Size < int64(len(i.data))
	}
	sectors := uint64(0)
	if i.acl != 0 {
		sectors = uint64(i.fs.blockSize) >> 9 << i.fs.clusterBits
	}
	return i.Sectors == sectors
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
