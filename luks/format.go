package luks

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"keyway/dmcrypt"
	"keyway/internal/secret"
)

// FormatOptions say what Format makes. The zero value is what cryptsetup 2.6 does:
// LUKS2, aes-xts-plain64 with a random key of 64 bytes, Argon2id, data from 16 MiB.
type FormatOptions struct {
	Version int    // 1 or 2; 0: 2
	Cipher  string // of the data, as dm-crypt spells it; "": aes-xts-plain64
	KeySize int    // bytes of the volume key; 0: 64 for xts, else 32
	// SectorSize in bytes, 512 to 4096; LUKS2. 0: 4096 if the data is whole sectors of
	// that size and the cipher takes them, else 512.
	SectorSize int
	Hash       string // of the anti-forensic split, the digest and (LUKS1) PBKDF2; "": sha256
	Key        KeyOptions
	Slot       int // number of the first keyslot

	UUID      string // "": random
	Label     string // LUKS2: up to 47 bytes
	Subsystem string // LUKS2: up to 47 bytes
	Flags     []string

	// VolumeKey is taken instead of a random one; it stays the caller's.
	VolumeKey *secret.Buffer

	// Detached: the header is on a medium of its own, and DataOffset counts on the
	// device of the data, from 0 unless it is set. DataSize is then the size of that
	// device in bytes, 0 if it is not known.
	Detached bool
	DataSize int64
	// Exact: the medium ends where the data begins, which is on a device of its own
	// of DataSize bytes and takes all of it. One after the other they are an image
	// with its header at the start. Excludes Detached; DataOffset is the size of the
	// medium, for which HeaderSize is a choice.
	Exact bool
	// DataOffset is the first byte of the data, a multiple of 512; 0: after the header,
	// at a multiple of Align.
	DataOffset int64
	Align      int64 // bytes, a power of two from 512; 0: 1 MiB
	// MetadataSize is the size of a copy of the header in bytes, a power of two from
	// 16 KiB to 4 MiB; LUKS2. 0: 16 KiB.
	MetadataSize int64
	// KeyslotsSize is the room for key material in bytes, a multiple of 4096 up to
	// 128 MiB; LUKS2. 0: what there is before DataOffset, else 16 MiB with the header.
	KeyslotsSize int64
}

// LUKS2 has its data at 16 MiB, the header included.
const (
	defaultHeader = 16 << 20
	defaultAlign  = 1 << 20
)

// Format makes a header on m, which has size bytes, with one passphrase, and returns
// it opened. Whatever was there is gone when it begins to write: Probe tells what
// that is. Until it has ended there is no header at all. The passphrase stays the
// caller's, who wipes the Volume's key. The header is read under the permissive
// policy. It blocks for as long as Key.KDF says.
func Format(ctx context.Context, m Medium, size int64, passphrase []byte, o FormatOptions) (*Editor, *Volume, error) {
	p, err := newPlan(size, o)
	if err != nil {
		return nil, nil, fmt.Errorf("luks: format: %w", err)
	}
	v, err := p.volumeKey()
	if err != nil {
		return nil, nil, fmt.Errorf("luks: format: %w", err)
	}
	e, err := p.format(ctx, m, v, passphrase)
	if err != nil {
		v.Key.Wipe()
		return nil, nil, fmt.Errorf("luks: format: %w", err)
	}
	return e, v, nil
}

// Erase makes what Probe finds on m, which has size bytes, unreadable, and nothing
// else: for a device whose header is elsewhere from now on. The first sector is zeroes
// then.
func Erase(m Medium, size int64) error {
	if there, err := Probe(m, size); err != nil || there == "" {
		return err
	}
	if err := (&plan{size: size}).eraseMagic(m); err != nil {
		return fmt.Errorf("luks: erase: %w", err)
	}
	return nil
}

// HeaderSize returns how many bytes a header with these options takes, all before
// the data: the smallest medium for a detached one, and the data offset of others.
func (o FormatOptions) HeaderSize() (int64, error) {
	p, err := newPlan(maxBytes, o)
	if err != nil {
		return 0, fmt.Errorf("luks: format: %w", err)
	}
	if o.Detached {
		return p.end(), nil
	}
	return p.DataOffset, nil
}

// A plan is FormatOptions with all defaults filled in, for a medium of size bytes.
type plan struct {
	FormatOptions
	size int64
}

func newPlan(size int64, o FormatOptions) (*plan, error) {
	p := &plan{o, size}
	if p.Version == 0 {
		p.Version = 2
	}
	if p.Version != 1 && p.Version != 2 {
		return nil, fmt.Errorf("version %d is neither 1 nor 2", p.Version)
	}
	if p.Hash == "" {
		p.Hash = "sha256"
	}
	if err := checkHash(p.Hash); err != nil {
		return nil, err
	}
	var err error
	if p.Key.KDF, err = p.Key.KDF.complete(p.Version, p.Hash); err != nil {
		return nil, err
	}
	if err := p.checkExact(); err != nil {
		return nil, err
	}
	if err := p.chooseUUID(); err != nil {
		return nil, err
	}
	if err := p.chooseCipher(); err != nil {
		return nil, err
	}
	if p.Version == 1 {
		return p, p.check1()
	}
	if p.Slot < 0 || p.Slot > maxID {
		return nil, fmt.Errorf("keyslot %d: LUKS2 has 0 to %d", p.Slot, maxID)
	}
	if err := p.choosePlace(); err != nil {
		return nil, err
	}
	return p, p.chooseSector()
}

func defaultKeySize(cipher string) int {
	if strings.Contains(cipher, "xts") {
		return 64
	}
	return 32
}

func (p *plan) chooseCipher() error {
	if p.Cipher == "" {
		p.Cipher = "aes-xts-plain64"
	}
	spec, err := dmcrypt.Parse(p.Cipher)
	if err != nil {
		return err
	}
	if spec.Keyless() {
		return fmt.Errorf("cipher %q encrypts nothing", p.Cipher)
	}
	if p.VolumeKey != nil {
		if p.KeySize != 0 && p.KeySize != p.VolumeKey.Len() {
			return fmt.Errorf("the volume key has %d bytes, and %d are asked for", p.VolumeKey.Len(), p.KeySize)
		}
		p.KeySize = p.VolumeKey.Len()
	}
	if p.KeySize == 0 {
		p.KeySize = defaultKeySize(p.Cipher)
	}
	return spec.CheckKey(p.KeySize)
}

func (p *plan) chooseUUID() error {
	if p.UUID == "" {
		b, err := randomBytes(16)
		if err != nil {
			return err
		}
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // RFC 9562, version 4
		p.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	return checkUUID(p.UUID)
}

// checkUUID takes the form in which others find volumes by it.
func checkUUID(s string) error {
	bad := fmt.Errorf("uuid: %.40q is not of the form 01234567-89ab-cdef-0123-456789abcdef", s)
	parts := strings.Split(s, "-")
	if len(parts) != 5 {
		return bad
	}
	for i, n := range []int{4, 2, 2, 2, 6} {
		if b, err := hex.DecodeString(parts[i]); err != nil || len(b) != n {
			return bad
		}
	}
	return nil
}

// choosePlace lays out a LUKS2 header.
func (p *plan) choosePlace() error {
	if p.MetadataSize == 0 {
		p.MetadataSize = minHdrSize
	}
	if n := p.MetadataSize; n < minHdrSize || n > maxHdrSize || n&(n-1) != 0 {
		return fmt.Errorf("metadata size: %d is not a power of two from %d to %d", n, minHdrSize, maxHdrSize)
	}
	if p.Align == 0 {
		p.Align = defaultAlign
	}
	if n := p.Align; n < sectorBytes || n > maxBytes/2 || n&(n-1) != 0 {
		return fmt.Errorf("alignment: %d is not a power of two from %d", n, sectorBytes)
	}
	copies := 2 * p.MetadataSize
	room := p.DataOffset - copies
	if off := p.DataOffset; off < 0 || off > maxBytes || off%sectorBytes != 0 {
		return fmt.Errorf("data offset: %d is not a multiple of %d", off, sectorBytes)
	}
	bound := p.DataOffset > 0 // the header ends where the data begins, at the latest
	switch n := p.KeyslotsSize; {
	case n < 0 || n > maxKeyslotsSize || n%binarySize != 0:
		return fmt.Errorf("keyslots size: %d is not a multiple of %d up to %d", n, binarySize, maxKeyslotsSize)
	case n == 0 && bound && p.Detached:
		p.KeyslotsSize = max(0, min(room/binarySize*binarySize, defaultHeader-copies))
	case n == 0 && bound:
		p.KeyslotsSize = max(0, min(room/binarySize*binarySize, maxKeyslotsSize))
	case n == 0:
		p.KeyslotsSize = max(defaultHeader-copies, defaultHeader/2)
	}
	if need := roundUp(materialSize(p.KeySize), areaAlign); p.KeyslotsSize < need {
		if bound && room < need {
			return fmt.Errorf("data offset: %d is less than the header takes with one key, %d", p.DataOffset, copies+need)
		}
		return fmt.Errorf("keyslots size: %d bytes are too few for one key: %d", p.KeyslotsSize, need)
	}
	if bound && p.KeyslotsSize > room {
		return fmt.Errorf("data offset: %d is less than the header takes, %d", p.DataOffset, p.end())
	}
	if !p.Detached && p.DataOffset == 0 {
		p.DataOffset = roundUp(p.end(), p.Align)
	}
	if end := p.end(); end > p.size {
		return fmt.Errorf("the device has %d bytes, and the header takes %d: a smaller keyslots size takes less", p.size, end)
	}
	return p.checkData()
}

// checkData refuses a place of the data in which there is none, or no whole sectors: no
// program would open the volume, but perhaps over a loop device, which rounds down.
func (p *plan) checkData() error {
	data := p.dataDevice()
	switch n := data - p.DataOffset; {
	case data < 0:
	case n <= 0:
		return fmt.Errorf("the device has %d bytes, and the data begins at %d: nothing is left for it", data, p.DataOffset)
	case n%sectorBytes != 0:
		return fmt.Errorf("the data has %d bytes, not a multiple of %d: make the device longer or shorter", n, sectorBytes)
	}
	return nil
}

// end is where a LUKS2 header ends.
func (p *plan) end() int64 {
	if p.Version == 1 {
		return p.end1()
	}
	return 2*p.MetadataSize + p.KeyslotsSize
}

// dataDevice is the size of the device on which DataOffset counts, -1 if it is not
// known.
func (p *plan) dataDevice() int64 {
	switch {
	case !p.Detached && !p.Exact:
		return p.size
	case p.DataSize == 0:
		return -1
	case p.Exact:
		return p.DataOffset + p.DataSize
	}
	return p.DataSize
}

// place is where the header will be.
func (p *plan) place() place {
	w := place{detached: p.Detached, size: p.size, data: p.dataDevice()}
	if p.Exact {
		w.shift = p.size
	}
	return w
}

// checkExact checks that the medium is all header.
func (p *plan) checkExact() error {
	switch {
	case p.DataSize < 0 || p.DataSize > maxBytes/2:
		return fmt.Errorf("data size: %d", p.DataSize)
	case !p.Exact:
		return nil
	case p.Detached:
		return errors.New("a header of exact size is not detached: it is the start of an image")
	case p.size == maxBytes:
		return nil // HeaderSize asks
	case p.DataSize == 0:
		return errors.New("exact size: the size of the data is not given")
	case p.DataOffset != 0 && p.DataOffset != p.size:
		return fmt.Errorf("exact size: the data offset is %d, and the device of the header has %d bytes", p.DataOffset, p.size)
	}
	p.DataOffset = p.size
	return nil
}

func (p *plan) chooseSector() error {
	spec, err := dmcrypt.Parse(p.Cipher)
	if err != nil {
		return err
	}
	data := p.dataDevice()
	if p.SectorSize == 0 {
		p.SectorSize = sectorBytes
		if data >= 0 && (data-p.DataOffset)%4096 == 0 && p.DataOffset%4096 == 0 && spec.CheckSector(4096) == nil {
			p.SectorSize = 4096
		}
	}
	if err := spec.CheckSector(p.SectorSize); err != nil {
		return err
	}
	if n := int64(p.SectorSize); p.size != maxBytes && data >= 0 && (data-p.DataOffset)%n != 0 {
		return fmt.Errorf("sector size: the data has %d bytes, not a multiple of %d", data-p.DataOffset, n)
	}
	return nil
}

// volumeKey returns a copy of the given key, or a random one.
func (p *plan) volumeKey() (*Volume, error) {
	key, err := secret.New(p.KeySize)
	if err != nil {
		return nil, err
	}
	if p.VolumeKey == nil {
		_, err = rand.Read(key.Bytes())
	} else if secret.Move(key.Bytes(), p.VolumeKey.Bytes()) != p.KeySize {
		err = errors.New("the volume key is wiped")
	}
	if err != nil {
		key.Wipe()
		return nil, err
	}
	return &Volume{Slot: p.Slot, Key: key}, nil
}

func randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := rand.Read(b)
	return b, err
}
