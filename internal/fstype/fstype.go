// Package fstype has what the readers of file systems have in common: the types of
// files, the names in directories, where the data of a file lies, and the errors that
// are the same for all.
package fstype

import (
	"errors"
	"fmt"
)

// Errors, compared with errors.Is.
var (
	// ErrUnsupported: well formed as far as one can tell, with something that is not
	// built here.
	ErrUnsupported = errors.New("not supported")
	// ErrDamaged: a checksum or a rule of the format does not hold.
	ErrDamaged = errors.New("damaged")
	// ErrUnused: no file has this inode.
	ErrUnused = errors.New("inode is not in use")
	// ErrNotExist: no such name or attribute.
	ErrNotExist = errors.New("does not exist")
	// ErrEncrypted: what was asked for needs a key.
	ErrEncrypted = errors.New("encrypted")
)

// A damage is an error that tells what is wrong, and is ErrDamaged.
type damage string

func (d damage) Error() string      { return string(d) }
func (damage) Is(target error) bool { return target == ErrDamaged }

// Damaged returns an error with this text that is ErrDamaged.
func Damaged(format string, args ...any) error { return damage(fmt.Sprintf(format, args...)) }

// A Type is the kind of a file, numbered as in directory entries.
type Type byte

// The types of files.
const (
	Unknown Type = iota // in entries of file systems that do not say it there
	Regular
	Directory
	CharDevice
	BlockDevice
	FIFO
	Socket
	Symlink

	// Types is the number of types.
	Types = iota
)

func (t Type) String() string {
	names := [Types]string{"unknown", "regular file", "directory", "character device", "block device", "FIFO", "socket", "symbolic link"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type %d", byte(t))
}

// TypeOf takes the type out of a mode.
func TypeOf(mode uint16) Type {
	switch mode & 0xf000 {
	case 0x1000:
		return FIFO
	case 0x2000:
		return CharDevice
	case 0x4000:
		return Directory
	case 0x6000:
		return BlockDevice
	case 0x8000:
		return Regular
	case 0xa000:
		return Symlink
	case 0xc000:
		return Socket
	}
	return Unknown
}

// An Entry is one name in a directory.
type Entry struct {
	Name  []byte // as on the medium: ciphertext in an encrypted directory, but for "." and ".."
	Inode uint32
	Type  Type // Unknown if the file system does not keep it here
	// Hash and MinorHash are those of the index, which are part of what Linux shows
	// for a name without the key. Zero where Linux has none: on ext4 in directories of
	// several blocks without an index, and, since case is not folded here, in those that
	// are casefolded and not encrypted. f2fs has no minor hash.
	Hash, MinorHash uint32
}

// A Kind tells what a run of blocks of a file is.
type Kind byte

// The kinds of runs.
const (
	Data      Kind = iota
	Hole           // no blocks: reads as zeros, which no cipher made
	Unwritten      // blocks without data yet: reads as zeros too
)

func (k Kind) String() string { return [...]string{"data", "hole", "unwritten"}[k] }

// A Run is a run of blocks of a file, in blocks of the file system.
type Run struct {
	Logical  uint64 // block of the file
	Physical uint64 // block of the device; 0 for holes
	Blocks   uint64
	Kind     Kind
}
