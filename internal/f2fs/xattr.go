package f2fs

import (
	"bytes"
	"fmt"
)

// Prefixes of names of attributes, as numbered on the medium.
const (
	AttrUser       = 1
	AttrACL        = 2
	AttrDefaultACL = 3
	AttrTrusted    = 4
	AttrSecurity   = 6
	AttrEncryption = 9 // of fscrypt; not for users
	AttrVerity     = 11
)

// An Attr is an extended attribute.
type Attr struct {
	Prefix byte // AttrUser, ...
	Name   string
	Value  []byte
}

const (
	attrMagic  = 0xf2f52011
	attrHeader = 24 // bytes
)

// Attrs returns the extended attributes: a list that begins in the inode and goes on
// in a node of its own.
func (i *Inode) Attrs() ([]Attr, error) {
	all, err := i.allAttrs()
	if err != nil {
		return nil, i.wrap(fmt.Errorf("attributes: %w", err))
	}
	return all, nil
}

func (i *Inode) allAttrs() (all []Attr, err error) {
	var b []byte
	if i.inline&inlineXattr != 0 {
		b = bytes.Clone(i.raw[inodeNodes-4*i.attrs : inodeNodes])
	}
	if nid := le32(i.raw, 76); nid != 0 {
		more, err := i.fs.node(nid, i.Number)
		if err != nil {
			return nil, err
		}
		if nid == i.Number {
			return nil, damaged("node %d is the inode itself", nid)
		}
		b = append(b, more[:nodeFooter]...)
	}
	if len(b) < attrHeader || allZero(b[:attrHeader]) {
		return nil, nil
	}
	if got := le32(b, 0); got != attrMagic {
		return nil, damaged("magic %08x", got)
	}
	type name struct {
		prefix byte
		name   string
	}
	seen := map[name]bool{}
	// The list ends with a zero word, or where there is no room for one.
	for at := attrHeader; len(b)-at >= 4 && le32(b, at) != 0; {
		e := b[at:]
		n, size := int(e[1]), int(le16(e, 2))
		if n == 0 && size == 0 || 4+n+size > len(e) {
			return nil, damaged("byte %d: a name of %d and a value of %d bytes", at, n, size)
		}
		a := Attr{Prefix: e[0], Name: string(e[4 : 4+n]), Value: e[4+n:][:size:size]}
		if seen[name{a.Prefix, a.Name}] {
			return nil, damaged("%.64q is there twice", a.Name)
		}
		seen[name{a.Prefix, a.Name}] = true
		all = append(all, a)
		at += (4 + n + size + 3) &^ 3
	}
	return all, nil
}

// Attr returns the value of an extended attribute, which is the caller's, or
// ErrNotExist.
func (i *Inode) Attr(prefix byte, name string) ([]byte, error) {
	all, err := i.Attrs()
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.Prefix == prefix && a.Name == name {
			return bytes.Clone(a.Value), nil
		}
	}
	return nil, i.wrap(fmt.Errorf("attribute %d %q %w", prefix, name, ErrNotExist))
}

// EncryptionContext returns the context that fscrypt keeps for an encrypted file, as
// it is on the medium: policy and nonce. Its bytes are not checked.
func (i *Inode) EncryptionContext() ([]byte, error) {
	if !i.Encrypted() {
		return nil, i.wrap(fmt.Errorf("encryption context %w: it is not encrypted", ErrNotExist))
	}
	return i.Attr(AttrEncryption, "c")
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
