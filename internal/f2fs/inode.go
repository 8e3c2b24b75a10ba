package f2fs

import (
	"fmt"
	"io"
	"time"

	"keyway/internal/fstype"
)

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

const (
	nodeFooter   = BlockSize - 24 // byte
	nodeAddrs    = 1018           // addresses in a node
	inodeAddrs   = 923            // and in an inode, with what takes their room
	inodeFixed   = 360            // bytes before them
	inodeNodes   = inodeFixed + 4*inodeAddrs
	inlineXattrs = 50 // addresses, unless the inode says another number

	adviseEncrypt = 0x4
	adviseVerity  = 0x40

	inlineXattr  = 0x1
	inlineData   = 0x2
	inlineDentry = 0x4
	inlineExtra  = 0x20

	flagCompressed = 0x4
	flagCasefold   = 0x40000000
)

// An Inode is a checked inode. It is not changed after it was read.
type Inode struct {
	Number     uint32
	Generation uint32
	Mode       uint16 // permissions and, in the upper four bits, the type
	UID, GID   uint32
	Links      uint32
	Size       int64  // bytes; of an encrypted file that of the plaintext
	Flags      uint32 // as on the medium

	Accessed, Modified, Changed time.Time

	fs     *FS
	advise byte
	inline byte
	raw    []byte // the block
	extra  int    // addresses taken by further fields
	attrs  int    // and by attributes
}

// Type returns the kind of the file.
func (i *Inode) Type() Type { return fstype.TypeOf(i.Mode) }

// Encrypted reports whether fscrypt encrypts the contents of the file or symbolic
// link, or the names in the directory.
func (i *Inode) Encrypted() bool { return i.advise&adviseEncrypt != 0 }

// Casefolded reports whether lookups in the directory ignore case; here they do not.
func (i *Inode) Casefolded() bool { return i.Flags&flagCasefold != 0 }

// Verity reports whether fs-verity protects the file. It is not verified here.
func (i *Inode) Verity() bool { return i.advise&adviseVerity != 0 }

// Inline reports whether the data is in the inode and has no blocks to map.
func (i *Inode) Inline() bool { return i.inline&(inlineData|inlineDentry) != 0 }

// wrap says which inode an error is about. The end of a file is none.
func (i *Inode) wrap(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return fmt.Errorf("f2fs: inode %d: %w", i.Number, err)
}

// Inode reads an inode that is in use.
func (f *FS) Inode(n uint32) (*Inode, error) {
	i := &Inode{fs: f, Number: n}
	var err error
	if i.raw, err = f.node(n, n); err == nil {
		err = i.parse()
	}
	if err != nil {
		return nil, i.wrap(err)
	}
	return i, nil
}

func (i *Inode) parse() error {
	b, f := i.raw, i.fs
	i.Mode, i.advise, i.inline = le16(b, 0), b[2], b[3]
	i.UID, i.GID, i.Links = le32(b, 4), le32(b, 8), le32(b, 12)
	size := uint64(le32(b, 16)) | uint64(le32(b, 20))<<32
	at := func(sec, nsec int) time.Time {
		return time.Unix(int64(uint64(le32(b, sec))|uint64(le32(b, sec+4))<<32), int64(le32(b, nsec))).UTC()
	}
	i.Accessed, i.Changed, i.Modified = at(32, 56), at(40, 60), at(48, 64)
	i.Generation, i.Flags = le32(b, 68), le32(b, 80)

	if i.inline&inlineExtra != 0 {
		n := int(le16(b, inodeFixed))
		if f.features&featExtraAttr == 0 || n < 4 || n%4 != 0 || n > 64 {
			return damaged("%d bytes of extra fields", n)
		}
		i.extra = n / 4
	}
	if f.features&featInodeSum != 0 && i.extra >= 3 {
		const sum = inodeFixed + 8
		c := crc(crc(f.seed, b[nodeFooter+4:][:4]), b[68:72])
		c = crc(crc(crc(c, b[:sum]), make([]byte, 4)), b[sum+4:])
		if want := le32(b, sum); want != c {
			return damaged("checksum %08x, computed %08x", want, c)
		}
	}
	switch {
	case f.features&featFlexInline != 0:
		if i.extra == 0 {
			return damaged("no extra fields to say how long its attributes are")
		}
		i.attrs = int(le16(b, inodeFixed+2))
	case i.inline&(inlineXattr|inlineDentry) != 0:
		i.attrs = inlineXattrs
	}
	if i.extra+i.attrs > inodeAddrs-16 {
		return damaged("%d addresses taken by attributes", i.attrs)
	}
	switch {
	case i.Type() == Unknown:
		return damaged("mode %06o has no type", i.Mode)
	case i.Links == 0:
		return ErrUnused
	case size > uint64(f.MaxFileSize()):
		return damaged("a size of %d bytes", size)
	case i.Encrypted() && f.features&featEncrypt == 0:
		return damaged("is encrypted, a feature that the file system does not have")
	case i.Verity() && f.features&featVerity == 0:
		return damaged("is verity, a feature that the file system does not have")
	case i.Casefolded() && f.features&featCasefold == 0:
		return damaged("is casefolded, a feature that the file system does not have")
	case i.Type() == Regular && i.Flags&flagCompressed != 0 && f.features&featCompress != 0:
		return fmt.Errorf("is compressed: %w", ErrUnsupported)
	case i.inline&inlineDentry != 0 && i.Type() != Directory, i.inline&inlineData != 0 && i.Type() != Regular && i.Type() != Symlink:
		return damaged("a %v with inline flags %#x", i.Type(), i.inline)
	case i.inline&inlineData != 0 && i.Encrypted() && i.Type() == Regular:
		return damaged("is encrypted with its data in the inode")
	case i.inline&inlineData != 0 && size > uint64(len(i.inlineArea())):
		return damaged("%d bytes in the inode, %d fit", size, len(i.inlineArea()))
	case i.Type() == Symlink && (size == 0 || size > BlockSize):
		return damaged("a symbolic link of %d bytes", size)
	case i.Type() == Directory && i.inline&inlineDentry == 0 && size%BlockSize != 0:
		return damaged("a directory of %d bytes", size)
	}
	i.Size = int64(size)
	return nil
}

// addrs is the number of addresses of data in the inode.
func (i *Inode) addrs() int { return inodeAddrs - i.extra - i.attrs }

// addrArea is where the addresses are.
func (i *Inode) addrArea() []byte { return i.raw[inodeFixed+4*i.extra:][:4*i.addrs()] }

// inlineArea is where data or names are instead: all but the first address.
func (i *Inode) inlineArea() []byte { return i.addrArea()[4:] }
