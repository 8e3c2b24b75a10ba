package volume

import (
	"iter"
	"time"

	"keyway/fscrypt"
	"keyway/internal/ext4"
	"keyway/internal/f2fs"
	"keyway/internal/fstype"
)

// A filesystem is what the readers of both kinds have in common.
type filesystem interface {
	inode(n uint32) (inode, error)
	open(e fstype.Entry) (inode, error)
}

// An inode is a checked inode of either kind.
type inode interface {
	facts() Facts
	EncryptionContext() ([]byte, error)
	Entries() iter.Seq2[fstype.Entry, error]
	Map(first, n uint64) iter.Seq2[fstype.Run, error]
	ReadAt(p []byte, off int64) (int, error)
	Target() ([]byte, error)
}

// A Type is the kind of a file.
type Type = fstype.Type

// The types of files.
const (
	Regular     = fstype.Regular
	Directory   = fstype.Directory
	CharDevice  = fstype.CharDevice
	BlockDevice = fstype.BlockDevice
	FIFO        = fstype.FIFO
	Socket      = fstype.Socket
	Symlink     = fstype.Symlink
)

// Facts are what an inode says of a file.
type Facts struct {
	Inode      uint32
	Generation uint32
	Type       Type
	Mode       uint16 // permissions and, in the upper four bits, the type
	UID, GID   uint32
	Links      uint32
	Size       int64 // bytes; of an encrypted file that of the plaintext, of an encrypted symbolic link that of the ciphertext

	Major, Minor uint32 // of a device; ext4 only

	Accessed, Modified, Changed, Created time.Time // Created is zero where it is not kept

	Encrypted  bool // by fscrypt
	Inline     bool // the data is in the inode
	Casefolded bool // a directory that ignores case; Lookup does not
	Verity     bool // fs-verity protects it; it is not verified here
}

type ext4FS struct{ *ext4.FS }

type ext4Inode struct{ *ext4.Inode }

func (v *Volume) setExt4(f *ext4.FS) {
	i := f.Info()
	v.fs = ext4FS{f}
	v.info = Info{
		Kind: "ext4", UUID: i.UUID, Label: i.Label, BlockSize: i.BlockSize, Size: int64(i.Blocks) * int64(i.BlockSize),
		Features: i.Features, Encrypt: i.Encrypt, StableInodes: i.StableInodes, Warnings: i.Warnings,
	}
	v.crit = fscrypt.Ext4(i.UUID, i.BlockSize, i.StableInodes)
	v.crit.MaxFileSize = i.MaxFileSize
}

func (f ext4FS) inode(n uint32) (inode, error) {
	if n == 0 {
		n = ext4.Root
	}
	i, err := f.FS.Inode(n)
	return ext4Inode{i}, err
}

func (f ext4FS) open(e fstype.Entry) (inode, error) {
	i, err := f.FS.Open(e)
	return ext4Inode{i}, err
}

func (i ext4Inode) facts() Facts {
	return Facts{
		Inode: i.Number, Generation: i.Generation, Type: i.Type(), Mode: i.Mode, UID: i.UID, GID: i.GID,
		Links: uint32(i.Links), Size: i.Size, Major: i.Major, Minor: i.Minor,
		Accessed: i.Accessed, Modified: i.Modified, Changed: i.Changed, Created: i.Created,
		Encrypted: i.Encrypted(), Inline: i.Inline(), Casefolded: i.Casefolded(), Verity: i.Verity(),
	}
}

type f2fsFS struct{ *f2fs.FS }

type f2fsInode struct{ *f2fs.Inode }

func (v *Volume) setF2FS(f *f2fs.FS) {
	i := f.Info()
	v.fs = f2fsFS{f}
	v.info = Info{
		Kind: "f2fs", UUID: i.UUID, Label: i.Label, BlockSize: f2fs.BlockSize, Size: int64(i.Blocks) * f2fs.BlockSize,
		Features: i.Features, Encrypt: i.Encrypt, StableInodes: true, Warnings: i.Warnings,
	}
	v.crit = fscrypt.F2FS(i.UUID, f2fs.BlockSize)
	v.crit.MaxFileSize = f.MaxFileSize()
}

func (f f2fsFS) inode(n uint32) (inode, error) {
	if n == 0 {
		n = f.Root()
	}
	i, err := f.FS.Inode(n)
	return f2fsInode{i}, err
}

func (f f2fsFS) open(e fstype.Entry) (inode, error) {
	i, err := f.FS.Open(e)
	return f2fsInode{i}, err
}

func (i f2fsInode) facts() Facts {
	return Facts{
		Inode: i.Number, Generation: i.Generation, Type: i.Type(), Mode: i.Mode, UID: i.UID, GID: i.GID,
		Links: i.Links, Size: i.Size, Accessed: i.Accessed, Modified: i.Modified, Changed: i.Changed,
		Encrypted: i.Encrypted(), Inline: i.Inline(), Casefolded: i.Casefolded(), Verity: i.Verity(),
	}
}
