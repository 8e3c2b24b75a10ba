package volume

import (
	"errors"
	"fmt"
	"iter"

	"keyway/blkcrypto"
	"keyway/fscrypt"
	"keyway/internal/fstype"
)

// A Kind tells what a piece of a file is.
type Kind = fstype.Kind

// The kinds of pieces.
const (
	Data      = fstype.Data
	Hole      = fstype.Hole      // reads as zeros, and has no place on the device
	Unwritten = fstype.Unwritten // has a place, and reads as zeros
)

// A Piece is a run of a file that one request can carry: its blocks follow each
// other on the device, and its data units have consecutive numbers.
type Piece struct {
	Kind Kind
	Off  int64 // bytes from the start of the file; a multiple of the block size
	Dev  int64 // bytes from the start of the device; -1 if not of Data
	Len  int64 // bytes, whole blocks: the last may reach beyond the end of the file

	Encrypted bool
	Keyed     bool          // Key, DUN and Unit are known: the master key was added
	Key       fscrypt.KeyID // of the contents
	DUN       blkcrypto.DUN // of the first data unit
	Unit      int           // bytes of a data unit
}

// Pieces yields what covers n bytes of a regular file from off on, in order and
// without gaps, from the start of the block of the first byte to the end of that of
// the last, or of the file. An error is the last thing that it yields. No key is
// needed; files that are Inline have no pieces.
func (f *File) Pieces(off, n int64) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		if err := f.pieces(off, n, func(p Piece) bool { return yield(p, nil) }); err != nil {
			yield(Piece{}, f.wrap(err))
		}
	}
}

// pieces is Pieces with a callback, which returns false to end it.
func (f *File) pieces(off, n int64, use func(Piece) bool) error {
	switch {
	case f.Type != Regular:
		return fmt.Errorf("%w: a %v has no contents", ErrType, f.Type)
	case off < 0 || n < 0:
		return fmt.Errorf("%d bytes at %d: negative", n, off)
	case f.Inline:
		return fmt.Errorf("%w: the data is in the inode, which has no pieces", ErrType)
	}
	n = min(n, f.Size-off)
	if n <= 0 {
		return nil
	}
	var c *fscrypt.File
	if f.Encrypted {
		var err error
		if c, err = f.opened(); err != nil && !errors.Is(err, ErrNoKey) {
			return err
		}
	}
	block := int64(f.v.info.BlockSize)
	first, last := off/block, (off+n-1)/block
	for r, err := range f.in.Map(uint64(first), uint64(last-first+1)) {
		if err != nil {
			return err
		}
		p := Piece{Kind: r.Kind, Off: int64(r.Logical) * block, Dev: -1, Len: int64(r.Blocks) * block, Encrypted: f.Encrypted}
		if r.Kind == Data {
			p.Dev = int64(r.Physical) * block
		}
		if more, err := cut(p, c, use); err != nil || !more {
			return err
		}
	}
	return nil
}

// cut numbers the data units of a piece and divides it where numbers are not
// consecutive.
func cut(p Piece, c *fscrypt.File, use func(Piece) bool) (more bool, err error) {
	if c == nil {
		return use(p), nil
	}
	p.Keyed, p.Key, p.Unit = true, c.KeyID(), c.Config().DataUnitSize
	for p.Len > 0 {
		part := p
		part.Len = c.Contiguous(p.Off, p.Len)
		if part.DUN, err = c.DUN(p.Off); err != nil {
			return false, fmt.Errorf("%w: %w", ErrDamaged, err) // larger than files can be
		}
		if !use(part) {
			return false, nil
		}
		p = p.From(part.Len)
	}
	return true, nil
}

// From returns the part of p that begins n bytes into it: whole data units.
func (p Piece) From(n int64) Piece {
	p.Off, p.Len = p.Off+n, p.Len-n
	if p.Dev >= 0 {
		p.Dev += n
	}
	if p.Keyed {
		p.DUN, _ = p.DUN.Add(uint64(n) / uint64(p.Unit))
	}
	return p
}
