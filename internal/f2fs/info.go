package f2fs

import "unicode/utf16"

// Info describes a file system.
type Info struct {
	UUID     [16]byte
	Label    string
	Blocks   uint64   // of BlockSize bytes
	Features []string // as mkfs.f2fs names them
	Encrypt  bool     // there may be encrypted files
	Warnings []string // what keeps no file from being read
}

// Info returns what a user or fscrypt may want to know.
func (f *FS) Info() Info {
	i := Info{UUID: f.uuid, Label: f.label, Blocks: f.blocks, Encrypt: f.features&featEncrypt != 0}
	for k, name := range featureNames {
		if f.features&(1<<k) != 0 {
			i.Features = append(i.Features, name)
		}
	}
	if f.unclean {
		i.Warnings = append(i.Warnings, "was not unmounted: what was synced after the last checkpoint is not seen")
	}
	return i
}

// featureNames are those of the features that are known, from bit 0 on.
var featureNames = [...]string{
	"encrypt", "blkzoned", "atomic_write", "extra_attr", "project_quota", "inode_checksum", "flexible_inline_xattr",
	"quota", "inode_crtime", "lost_found", "verity", "sb_checksum", "casefold", "compression", "ro",
}

// labelOf takes the label out of a superblock: up to 512 units of UTF-16, ended by a
// zero.
func labelOf(b []byte) string {
	var units []uint16
	for k := range 512 {
		u := le16(b, 0x7c+2*k)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
