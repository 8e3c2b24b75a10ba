// Package volume reads files of ext4 and f2fs file systems, encrypted by fscrypt or
// not, as an upper layer of a block device does in the kernel: metadata by requests
// without a context, contents by requests that carry the file's key and the number
// of the first data unit, so that engines beneath, or software in their place,
// decrypt them.
//
//	v, err := volume.Open(ctx, dev, volume.Options{})   // dev: a handle on a mapped device or leaf
//	err = v.AddKey(m)                                   // m is v's from now on
//	f, err := v.Lookup("/photos/1.jpg")
//	n, err := f.Send(ctx, os.Stdout)
//	err = f.Close(ctx)
//	receipts, err := v.Close(ctx)                       // no key is left anywhere
//
// A key of contents is started on the device before the first request with it. It
// is shared by the files of equal fscrypt.KeyID, and evicted from wherever it came
// to when the last of them is closed. Requests with a context are marked
// block.SkipDefaultKey: default-key lets them by, and encrypts all others.
//
// Contents are replaced in place, in blocks that exist (WriteAt); nothing else is ever
// written, no metadata either.
//
// Without the key of a directory its names are those that Linux lists then, and are
// found by these; contents and targets fail with ErrNoKey.
//
// Images are untrusted input: what breaks a rule of the format, of fscrypt or of a
// name is refused with ErrDamaged and its place, and never shown as if it were good.
// Contents have no checksum: what is damaged there decrypts to noise, and nobody can
// tell. fs-verity is not verified. The file system must not be in use by others.
//
// A volume and its files may be used from many goroutines, but not after Close.
package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/fscrypt"
	"keyway/internal/ext4"
	"keyway/internal/f2fs"
	"keyway/internal/fstype"
)

// Errors, compared with errors.Is. Errors of the device come through as they are.
var (
	// ErrNoKey: contents or names need a master key that was not added. The error is a
	// *NoKeyError.
	ErrNoKey = errors.New("the key was not added")
	// ErrNotExist: there is no file of this name.
	ErrNotExist = fstype.ErrNotExist
	// ErrNotSupported: well formed as far as one can tell, with something that is not
	// built here.
	ErrNotSupported = fstype.ErrUnsupported
	// ErrDamaged: a checksum or a rule does not hold.
	ErrDamaged = fstype.ErrDamaged
	// ErrUnclean: the file system was not unmounted, and Options do not say to read it
	// nevertheless.
	ErrUnclean = errors.New("the file system was not unmounted")
	// ErrUnknown: there is no file system that is known here.
	ErrUnknown = errors.New("no ext4 or f2fs file system")
	// ErrType: a directory is no file to read, and the other way round.
	ErrType = errors.New("wrong type of file")
	// ErrClosed: the file or the volume was closed.
	ErrClosed = errors.New("closed")
)

// A NoKeyError is ErrNoKey, with the key that is needed.
type NoKeyError struct {
	Of   string // "contents of ...", "names in ..."
	Spec fscrypt.KeySpec
}

func (e *NoKeyError) Error() string {
	return fmt.Sprintf("%s: encrypted under master key %v, which was not added", e.Of, e.Spec)
}

// Is makes it an ErrNoKey.
func (e *NoKeyError) Is(target error) bool { return target == ErrNoKey }

// A Device is what a file system lies on. dm.Handle, of a mapped device or a leaf,
// is one.
type Device interface {
	block.Device

	// StartKey declares that requests with k will come, until stop. by says from whom.
	StartKey(k *blkcrypto.Key, by string) (stop func(), err error)
}

// Options of Open. The zero value is the strict one.
type Options struct {
	// IgnoreUnclean reads a file system that was not unmounted: of ext4 what is outside
	// of its journal, of f2fs the last checkpoint. What is read may be old, and may not
	// fit together.
	IgnoreUnclean bool
	// By says who uses keys, for people; "" stands for "fscrypt".
	By string
	// Evicted, if set, is told of each key that was evicted, also of those that are when
	// a file is closed. It must not call the volume.
	Evicted func(blkcrypto.Eviction)
}

// A Volume is a file system that was opened.
type Volume struct {
	ctx  context.Context // of reads of metadata
	dev  Device
	o    Options
	fs   filesystem
	info Info
	crit fscrypt.FileSystem // what keys and numbers depend on

	writing sync.Mutex // one write at a time: data units are read, changed and written back

	mu      sync.Mutex // guards the rest
	masters []*fscrypt.MasterKey
	keys    map[fscrypt.KeyID]*contents
	going   []*contents // whose eviction did not succeed yet
	closed  bool
}

// Info describes the file system of a volume.
type Info struct {
	Kind         string // "ext4", also of ext2 and ext3, or "f2fs"
	UUID         [16]byte
	Label        string
	BlockSize    int      // bytes
	Size         int64    // bytes of the device that the file system takes
	Features     []string // as the tools of the file system name them
	Encrypt      bool     // there may be encrypted files
	StableInodes bool     // inodes keep their numbers: IV_INO_LBLK policies are possible
	Warnings     []string // what keeps no file from being read
}

// Open recognises the file system on dev, which stays the caller's and must stay open.
// ctx is that of all reads of metadata of the volume, not only of Open: when it ends,
// they fail. Those of contents have their own.
func Open(ctx context.Context, dev Device, o Options) (*Volume, error) {
	if o.By == "" {
		o.By = "fscrypt"
	}
	v := &Volume{ctx: ctx, dev: dev, o: o, keys: map[fscrypt.KeyID]*contents{}}
	r := &metadata{ctx: ctx, dev: dev}
	size := dev.Info().Size
	e, err := ext4.Open(r, size, ext4.Options{IgnoreJournal: o.IgnoreUnclean})
	switch {
	case err == nil:
		v.setExt4(e)
		return v.fit()
	case errors.Is(err, ext4.ErrJournal):
		return nil, fmt.Errorf("%w: %w", ErrUnclean, err)
	case !errors.Is(err, ext4.ErrNotExt4):
		return nil, err
	}
	f, err := f2fs.Open(r, size, f2fs.Options{IgnoreUnclean: o.IgnoreUnclean})
	switch {
	case err == nil:
		v.setF2FS(f)
		return v.fit()
	case errors.Is(err, f2fs.ErrUnclean):
		return nil, fmt.Errorf("%w: %w", ErrUnclean, err)
	case errors.Is(err, f2fs.ErrNotF2FS):
		return nil, fmt.Errorf("%w on a device of %d bytes: is it encrypted as a whole, or does it begin elsewhere?", ErrUnknown, size)
	}
	return nil, err
}

// fit refuses a device whose blocks are larger than those of the file system: requests
// could not be as small as its runs.
func (v *Volume) fit() (*Volume, error) {
	if n := v.dev.Info().LogicalBlock; n > v.info.BlockSize {
		return nil, fmt.Errorf("%s: blocks of %d bytes, on a device with blocks of %d: %w", v.info.Kind, v.info.BlockSize, n, ErrNotSupported)
	}
	return v, nil
}

// Info returns what a user may want to know.
func (v *Volume) Info() Info { return v.info }

// FileSystem is what fscrypt derives keys and numbers of data units from.
func (v *Volume) FileSystem() fscrypt.FileSystem { return v.crit }
