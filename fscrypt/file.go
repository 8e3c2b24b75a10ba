package fscrypt

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"

	"keyway/blkcrypto"
	"keyway/internal/secret"
)

// directIVSize is what an IV of DIRECT_KEY takes: a data unit's number and a nonce,
// in bytes.
const directIVSize = 8 + NonceSize

// A File is an inode with its master key: a regular file, a directory or a symbolic
// link. It holds no key, so nothing of it needs to be wiped; it fails with
// ErrKeyGone once the master key has been.
type File struct {
	master *MasterKey
	fs     FileSystem
	c      Context
	inode  uint64
	hash   uint32 // of the inode number; for IV_INO_LBLK_32
	shift  int    // log2 of the data unit size
}

// Open prepares for the inode with a number and a context. It refuses what
// Policy.CheckOn refuses, a master key that the policy does not name (ErrWrongKey),
// and a wrapped key under a policy that such keys cannot serve.
func Open(m *MasterKey, fs FileSystem, c Context, inode uint64) (*File, error) {
	p := c.Policy
	if err := p.CheckOn(fs); err != nil {
		return nil, err
	}
	if !m.Is(p.Key) {
		return nil, fmt.Errorf("fscrypt: %w: %v, and the policy names %v", ErrWrongKey, m, p.Key)
	}
	if m.wrapped && p.Flags&inoLblk == 0 {
		return nil, &FieldError{"policy v2", "flags", fmt.Sprintf("0x%02x: a hardware-wrapped key needs IV_INO_LBLK_64 or IV_INO_LBLK_32", uint8(p.Flags))}
	}
	if p.Flags&inoLblk != 0 && inode > math.MaxUint32 {
		return nil, fmt.Errorf("fscrypt: inode %d: %v needs inode numbers of 32 bits", inode, p.Flags)
	}
	f := &File{master: m, fs: fs, c: c, inode: inode, shift: int(p.Log2DataUnit)}
	if f.shift == 0 {
		f.shift = fs.blockShift()
	}
	return f, m.use(func() error {
		if p.Flags&InoLblk32 != 0 {
			f.hash = uint32(sipHash(m.inodeHash.Bytes(), binary.LittleEndian.AppendUint64(nil, inode)))
		}
		return nil
	})
}

// Context returns what the inode stores.
func (f *File) Context() Context { return f.c }

// A KeyID identifies the key of a file's contents, before it is derived: files with
// equal IDs share one key, and must share one blkcrypto.Key, which is what keyslots
// and evictions know. It is comparable and holds nothing secret.
type KeyID struct {
	master  uint64
	spec    KeySpec
	flag    Flags // of perModeKey; none: the file's own key
	mode    Mode
	shift   uint8 // log2 of the data unit size
	wrapped bool
	dun     uint8    // DUN bytes
	of      [16]byte // nonce of the file, or UUID of the file system
}

// PerFile reports whether the key is of one file only.
func (k KeyID) PerFile() bool { return k.flag == 0 }

// String tells what the key is derived for.
func (k KeyID) String() string {
	s := fmt.Sprintf("master key %v, %v", k.spec, k.mode)
	switch {
	case k.flag == 0:
		s += ", file with nonce " + hex.EncodeToString(k.of[:])
	case k.flag == DirectKey:
		s += ", DIRECT_KEY"
	default:
		s += fmt.Sprintf(", %v, file system %x", k.flag, k.of)
	}
	if k.wrapped {
		s += ", hardware-wrapped"
	}
	return s
}

// KeyID returns the identity of the key of the contents.
func (f *File) KeyID() KeyID {
	c := f.Config()
	k := KeyID{
		master: f.master.number, spec: f.c.Policy.Key, flag: f.c.Policy.Flags & perModeKey, mode: f.c.Policy.Contents,
		shift: uint8(f.shift), wrapped: f.master.wrapped, dun: uint8(c.DUNBytes),
	}
	switch {
	case k.flag == 0:
		k.of = f.c.Nonce
	case k.flag&inoLblk != 0:
		k.of = f.fs.UUID
	}
	return k
}

// Config says how the contents are encrypted.
func (f *File) Config() blkcrypto.Config {
	mode, _ := f.c.Policy.Contents.Block()
	c := blkcrypto.Config{Mode: mode, KeyType: blkcrypto.Raw, DataUnitSize: 1 << f.shift, DUNBytes: (f.fs.unitBits(f.shift) + 7) / 8}
	if f.master.wrapped {
		c.KeyType = blkcrypto.HWWrapped
	}
	switch f.c.Policy.Flags & perModeKey {
	case DirectKey:
		c.DUNBytes = directIVSize
	case InoLblk64:
		c.DUNBytes = 8
	case InoLblk32:
		c.DUNBytes = 4
	}
	return c
}

// NewKey derives the key of the contents, for requests to a device that supports
// Config. name is for people. One key is made for all files of equal KeyID; the
// caller keeps it, and evicts it when the last of them is closed.
func (f *File) NewKey(name string) (*blkcrypto.Key, error) {
	var b *secret.Buffer
	var err error
	if f.master.wrapped {
		b, err = f.master.wrappedBytes()
	} else {
		b, err = f.derive(f.c.Policy.Contents)
	}
	if err != nil {
		return nil, fmt.Errorf("fscrypt: key %q: %w", name, err)
	}
	k, err := blkcrypto.NewKey(name, f.Config(), b)
	if err != nil {
		return nil, fmt.Errorf("fscrypt: %w", err)
	}
	return k, nil
}

func (m *MasterKey) wrappedBytes() (b *secret.Buffer, err error) {
	return b, m.use(func() error {
		if b, err = secret.New(m.key.Len()); err == nil {
			secret.Move(b.Bytes(), m.key.Bytes())
		}
		return err
	})
}

// derive returns the key that the policy gives to mode, of contents or of names.
func (f *File) derive(mode Mode) (b *secret.Buffer, err error) {
	m, p := f.master, f.c.Policy
	least := mode.Strength()
	if p.Version == 1 {
		least = mode.KeySize() // nothing stretches it
	}
	err = m.use(func() error {
		if n := m.key.Len(); !m.wrapped && n < least {
			return fmt.Errorf("%w: %d bytes, and %v under a v%d policy needs %d", ErrShortKey, n, mode, p.Version, least)
		}
		if b, err = secret.New(mode.KeySize()); err != nil {
			return err
		}
		out, number := b.Bytes(), []byte{byte(mode)}
		switch {
		case p.Version == 1 && p.Flags&DirectKey != 0:
			secret.Move(out, m.key.Bytes())
		case p.Version == 1:
			return m.perFileV1(out, f.c.Nonce)
		case p.Flags&DirectKey != 0:
			m.expand(out, contextDirectKey, number)
		case p.Flags&InoLblk64 != 0:
			m.expand(out, contextInoLblk64, number, f.fs.UUID[:])
		case p.Flags&InoLblk32 != 0:
			m.expand(out, contextInoLblk32, number, f.fs.UUID[:])
		default:
			m.expand(out, contextPerFile, f.c.Nonce[:])
		}
		return nil
	})
	if err != nil {
		b.Wipe()
		return nil, err
	}
	return b, nil
}

// DUN returns the number of the data unit at an offset of the contents in bytes, a
// multiple of the data unit size.
func (f *File) DUN(off int64) (blkcrypto.DUN, error) {
	if off < 0 || off >= f.fs.MaxFileSize {
		return blkcrypto.DUN{}, fmt.Errorf("fscrypt: inode %d: offset %d: files have at most %d bytes", f.inode, off, f.fs.MaxFileSize)
	}
	if off&(1<<f.shift-1) != 0 {
		return blkcrypto.DUN{}, fmt.Errorf("fscrypt: inode %d: offset %d is not a multiple of the data unit size, %d", f.inode, off, 1<<f.shift)
	}
	return f.number(uint64(off) >> f.shift), nil
}

// number is the DUN of data unit index, and the IV of names at index 0.
func (f *File) number(index uint64) (d blkcrypto.DUN) {
	switch f.c.Policy.Flags & perModeKey {
	case DirectKey:
		d[1], d[2] = binary.LittleEndian.Uint64(f.c.Nonce[:]), binary.LittleEndian.Uint64(f.c.Nonce[8:])
	case InoLblk64:
		index |= f.inode << 32
	case InoLblk32:
		index = uint64(f.hash + uint32(index))
	}
	d[0] = index
	return d
}

// Contiguous returns how many of the n bytes from off on, whole data units, have
// consecutive numbers, so that one request may carry them. It is n unless the
// policy is IV_INO_LBLK_32, whose numbers go from 2^32-1 to 0.
func (f *File) Contiguous(off, n int64) int64 {
	if f.c.Policy.Flags&InoLblk32 == 0 {
		return n
	}
	left := 1<<32 - int64(f.hash+uint32(off>>f.shift))
	return min(n, left<<f.shift)
}
