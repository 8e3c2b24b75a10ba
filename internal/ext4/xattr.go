package ext4

import (
	"bytes"
	"fmt"
	"io"
)

// Prefixes of names of attributes, as numbered on the medium.
const (
	AttrUser       = 1
	AttrACL        = 2 // system.posix_acl_access, without a name
	AttrDefaultACL = 3 // system.posix_acl_default, without a name
	AttrTrusted    = 4
	AttrSecurity   = 6
	AttrSystem     = 7
	AttrRichACL    = 8 // system.richacl, without a name
	AttrEncryption = 9 // of fscrypt; not for users
)

var attrPrefix = map[byte]string{
	AttrUser: "user.", AttrACL: "system.posix_acl_access", AttrDefaultACL: "system.posix_acl_default", AttrTrusted: "trusted.",
	AttrSecurity: "security.", AttrSystem: "system.", AttrRichACL: "system.richacl", AttrEncryption: "encryption.",
}

// An Attr is an extended attribute.
type Attr struct {
	Prefix byte   // AttrUser, ...
	Name   string // without its prefix
	Size   int    // bytes of the value, up to 16 MiB

	value []byte // where it is, unless in an inode of its own
	inode uint32
	hash  uint32
}

// FullName is the name with its prefix, as Linux shows it.
func (a *Attr) FullName() string {
	if p, ok := attrPrefix[a.Prefix]; ok {
		return p + a.Name
	}
	return fmt.Sprintf("prefix%d.%s", a.Prefix, a.Name)
}

const (
	attrMagic   = 0xea020000
	attrHeader  = 32 // bytes, of a block of attributes
	attrEntry   = 16 // without the name
	maxAttrSize = 1 << 24
)

// Attrs lists the extended attributes: those of the inode, then those of its block.
func (i *Inode) Attrs() ([]Attr, error) {
	all, err := i.allAttrs()
	if err != nil {
		return nil, i.wrap(fmt.Errorf("attributes: %w", err))
	}
	return all, nil
}

func (i *Inode) allAttrs() ([]Attr, error) {
	var all []Attr
	if b := i.attrs; len(b) >= 8 && le32(b, 0) == attrMagic {
		var err error
		// Values count from the first entry.
		if all, err = i.attrList(b[4:], 0); err != nil {
			return nil, fmt.Errorf("in the inode: %w", err)
		}
	}
	if i.acl == 0 {
		return all, nil
	}
	b, err := i.attrBlock()
	if err == nil {
		var more []Attr
		more, err = i.attrList(b, attrHeader)
		all = append(all, more...)
	}
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", i.acl, err)
	}
	type name struct {
		prefix byte
		name   string
	}
	seen := map[name]bool{}
	for _, a := range all {
		if n := (name{a.Prefix, a.Name}); seen[n] {
			return nil, damaged("%q is there twice", a.FullName())
		} else {
			seen[n] = true
		}
	}
	return all, nil
}

func (i *Inode) attrBlock() ([]byte, error) {
	f := i.fs
	if err := f.outside(i.acl, 1); err != nil {
		return nil, err
	}
	b, err := f.block(i.acl)
	if err != nil {
		return nil, err
	}
	if magic, n := le32(b, 0), le32(b, 8); magic != attrMagic || n != 1 {
		return nil, damaged("magic %08x, %d blocks", magic, n)
	}
	if f.checksums() {
		c := crc32le(crc32le(f.seed, uint32(i.acl)), uint32(i.acl>>32))
		c = crc(crc(crc(c, b[:16]), zeros[:]), b[20:])
		if want := le32(b, 16); want != c {
			return nil, damaged("checksum %08x, computed %08x", want, c)
		}
	}
	return b, nil
}

// attrList parses the entries of b from some byte on, up to four zero bytes. Values
// are behind them and count from the first byte of b.
func (i *Inode) attrList(b []byte, at int) (all []Attr, err error) {
	first := at
	for {
		if len(b)-at < 4 {
			return nil, damaged("the list of names has no end")
		}
		if le32(b, at) == 0 {
			break
		}
		n := int(b[at])
		if len(b)-at < attrEntry+n {
			return nil, damaged("byte %d: a name of %d bytes", at, n)
		}
		e := b[at:][:attrEntry+n]
		a := Attr{Prefix: e[1], Name: string(e[attrEntry:]), inode: le32(e, 4), hash: le32(e, 12)}
		size := le32(e, 8)
		if size > maxAttrSize {
			return nil, damaged("%.64q: a value of %d bytes", a.FullName(), size)
		}
		if bytes.IndexByte(e[attrEntry:], 0) >= 0 {
			return nil, damaged("%.64q: a name with a zero byte", a.FullName())
		}
		a.Size = int(size)
		all = append(all, a)
		at += attrEntry + (n+3)&^3
	}
	end, at := at+4, first
	for k := range all {
		a := &all[k]
		e := b[at:]
		at += attrEntry + (len(a.Name)+3)&^3
		if a.inode != 0 || a.Size == 0 {
			continue
		}
		off := int(le16(e, 2))
		if off < end || off+a.Size > len(b) {
			return nil, damaged("%.64q: a value of %d bytes at byte %d, not between %d and %d", a.FullName(), a.Size, off, end, len(b))
		}
		a.value = b[off:][:a.Size]
	}
	return all, nil
}

// Attr returns the value of an extended attribute, which is the caller's, or
// ErrNotExist.
func (i *Inode) Attr(prefix byte, name string) ([]byte, error) {
	v, err := i.attr(prefix, name)
	if err != nil {
		return nil, i.wrap(err)
	}
	return v, nil
}

func (i *Inode) attr(prefix byte, name string) ([]byte, error) {
	all, err := i.allAttrs()
	if err != nil {
		return nil, fmt.Errorf("attributes: %w", err)
	}
	for k := range all {
		a := &all[k]
		if a.Prefix != prefix || a.Name != name {
			continue
		}
		if a.inode == 0 {
			return bytes.Clone(a.value), nil
		}
		v, err := i.bigAttr(a)
		if err != nil {
			return nil, fmt.Errorf("attribute %q: %w", a.FullName(), err)
		}
		return v, nil
	}
	a := Attr{Prefix: prefix, Name: name}
	return nil, fmt.Errorf("attribute %q %w", a.FullName(), ErrNotExist)
}

// bigAttr reads a value that has an inode of its own.
func (i *Inode) bigAttr(a *Attr) ([]byte, error) {
	f := i.fs
	if f.incompat&incompatEAInode == 0 {
		return nil, damaged("inode %d holds it, and the file system has no ea_inode", a.inode)
	}
	if a.inode < f.firstInode || a.inode > f.inodes {
		return nil, damaged("inode %d is not one of a file", a.inode)
	}
	h, err := f.inode(a.inode)
	if err != nil {
		return nil, err
	}
	if h.Flags&flagEAInode == 0 || h.Type() != Regular || h.Encrypted() {
		return nil, damaged("inode %d holds no attribute", a.inode)
	}
	if h.Size != int64(a.Size) {
		return nil, damaged("inode %d has %d bytes, not %d", a.inode, h.Size, a.Size)
	}
	if uint64(a.Size) > f.blocks<<f.blockBits {
		return nil, damaged("inode %d: more bytes than the file system", a.inode)
	}
	v := make([]byte, a.Size)
	if n, err := h.readTo(v, 0, h.Size); n < len(v) && err != nil {
		return nil, err
	} else if n < len(v) {
		return nil, io.ErrUnexpectedEOF
	}
	// Its hash is in the place of a time. Lustre kept the number of the owner instead.
	hash := uint32(h.Accessed.Unix())
	owned := uint32(h.Modified.Unix()) == i.Number && h.Generation == i.Generation
	if got := crc(f.seed, v); got != hash && !owned {
		return nil, damaged("inode %d: hash %08x, computed %08x", a.inode, hash, got)
	}
	return v, nil
}

// EncryptionContext returns the context that fscrypt keeps for an encrypted file, as
// it is on the medium: policy and nonce. Its bytes are not checked.
func (i *Inode) EncryptionContext() ([]byte, error) {
	if !i.Encrypted() {
		return nil, i.wrap(fmt.Errorf("encryption context %w: it is not encrypted", ErrNotExist))
	}
	return i.Attr(AttrEncryption, "c")
}
