// Package fscrypt is what Linux's fscrypt computes: which key encrypts a file's
// contents and names, with which numbers of data units, and what names look like
// with the key and without. It takes and returns bytes; whoever reads the file
// system and carries the requests does the rest. Contents are not encrypted here:
// a File gives a blkcrypto.Key and the DUN of every data unit, so that an inline
// engine or the software in its place does it.
//
//	m, err := fscrypt.NewMasterKey(raw)            // of the policy's KeySpec
//	c, err := fscrypt.ParseContext(xattr)          // of the inode
//	f, err := fscrypt.Open(m, fs, c, inode)
//	names, err := f.Names()                        // of a directory or symlink
//	key, err := f.NewKey("photos/1.jpg")           // of a regular file; shared where
//	                                               // f.KeyID() is equal
//	dun, err := f.DUN(offset)
//
// Contexts and policies are untrusted input and checked as strictly as the kernel
// checks them when it sets a policy. What a wrong key or a damaged medium makes of a
// name is refused where it can be told.
//
// Master keys and what is derived from them are in locked memory and wiped, the
// states of hash functions included. A hash of the inode number, which
// IV_INO_LBLK_32 adds to the numbers of data units, is not treated as secret.
//
// Sources: Documentation/filesystems/fscrypt.rst and fs/crypto of Linux 6.12, for
// hardware-wrapped keys of 6.16. ext4 and f2fs agree in all of this.
package fscrypt

import (
	"errors"
	"fmt"
)

// Errors, compared with errors.Is. In brackets: what Linux answers.
var (
	// ErrWrongKey: the master key is not the one that the policy names [ENOKEY].
	ErrWrongKey = errors.New("not the master key of this policy")
	// ErrShortKey: the master key is shorter than the policy's modes need [ENOKEY].
	ErrShortKey = errors.New("the master key is too short")
	// ErrKeyGone: the master key has been wiped.
	ErrKeyGone = errors.New("the master key has been wiped")
	// ErrName: not a name that can be encrypted, or not the encryption of one with
	// this key [EUCLEAN].
	ErrName = errors.New("not a valid name")
	// ErrNameTooLong: a name of more than 255 bytes, or a symlink's target that does
	// not fit [ENAMETOOLONG].
	ErrNameTooLong = errors.New("name too long")
	// ErrNoKeyName: no name that a directory without its key shows [ENOENT].
	ErrNoKeyName = errors.New("not a name of an encrypted file without its key")
)

// A FieldError says what of a policy or context is wrong.
type FieldError struct {
	Of     string // "policy", "context", "policy v1", ...
	Field  string // as the kernel's structures spell it: "contents_encryption_mode", ...; "": all of it
	Reason string
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("fscrypt %s: %s", e.Of, e.Reason)
	}
	return fmt.Sprintf("fscrypt %s: %s: %s", e.Of, e.Field, e.Reason)
}
