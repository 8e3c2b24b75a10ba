package luks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// check1 fills in what LUKS1 leaves open, and refuses what it does not have.
func (p *plan) check1() error {
	switch {
	case p.Slot < 0 || p.Slot >= slots1:
		return fmt.Errorf("keyslot %d: LUKS1 has 0 to %d", p.Slot, slots1-1)
	case p.Label != "" || p.Subsystem != "" || p.Flags != nil:
		return errors.New("LUKS1 has neither label, subsystem nor flags")
	case p.MetadataSize != 0 || p.KeyslotsSize != 0:
		return errors.New("LUKS1 has neither a metadata size nor a keyslots size")
	case p.SectorSize != 0 && p.SectorSize != sectorBytes:
		return fmt.Errorf("sector size: LUKS1 has %d bytes only, not %d", sectorBytes, p.SectorSize)
	}
	if _, err := areaSpec(p.Cipher); err != nil {
		return fmt.Errorf("LUKS1 encrypts key material like data: %w", err)
	}
	p.SectorSize = sectorBytes
	for _, s := range append(strings.SplitN(p.cipher1(), "-", 2), p.Hash) {
		if len(s) > 31 {
			return fmt.Errorf("%q is longer than the 31 bytes of LUKS1", s)
		}
	}
	if p.Align == 0 {
		p.Align = defaultAlign
	}
	if n := p.Align; n < sectorBytes || n > maxBytes/2 || n&(n-1) != 0 {
		return fmt.Errorf("alignment: %d is not a power of two from %d", n, sectorBytes)
	}
	end := p.end1()
	if !p.Detached && p.DataOffset == 0 {
		p.DataOffset = roundUp(end, p.Align)
	}
	switch off := p.DataOffset; {
	case off < 0 || off%sectorBytes != 0 || off/sectorBytes > 1<<32-1:
		return fmt.Errorf("data offset: %d is not a multiple of %d up to 2^32 sectors", off, sectorBytes)
	case off < end && (off > 0 || !p.Detached):
		return fmt.Errorf("data offset: %d is less than the header takes, %d", off, end)
	case end > p.size:
		return fmt.Errorf("the device has %d bytes, and the header takes %d", p.size, end)
	}
	return p.checkData()
}

// cipher1 is the cipher with its mode: LUKS1 has them apart.
func (p *plan) cipher1() string {
	if !strings.Contains(p.Cipher, "-") {
		return p.Cipher + "-cbc-plain" // what a cipher alone means
	}
	return p.Cipher
}

// slot1Size is the room for the key material of a keyslot of LUKS1.
func (p *plan) slot1Size() int64 { return roundUp(materialSize(p.KeySize), areaAlign) }

func (p *plan) end1() int64 { return areaAlign + slots1*p.slot1Size() }

// header1 makes a LUKS1 header without keyslots.
func (p *plan) header1(ctx context.Context, v *Volume, iterations int) (*Header, error) {
	d, err := newDigest(ctx, v.Key.Bytes(), p.Hash, iterations, digest1)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size1)
	be := binary.BigEndian
	copy(b, magic1st[:])
	be.PutUint16(b[offVersion:], 1)
	cipher, mode, _ := strings.Cut(p.cipher1(), "-")
	pad(b[cipher1At:][:32], cipher)
	pad(b[cipher1At+32:][:32], mode)
	pad(b[cipher1At+64:][:32], p.Hash)
	be.PutUint32(b[payload1At:], uint32(p.DataOffset/sectorBytes))
	be.PutUint32(b[payload1At+4:], uint32(p.KeySize))
	copy(b[112:132], d.Digest)
	copy(b[132:164], d.Salt)
	be.PutUint32(b[164:], uint32(d.Iterations))
	pad(b[uuid1At:][:40], p.UUID)
	for i := range slots1 {
		encodeSlot1(b, i, nil)
		s := b[slot1At+i*slot1Bytes:]
		be.PutUint32(s[40:], uint32((areaAlign+int64(i)*p.slot1Size())/sectorBytes))
		be.PutUint32(s[44:], stripes)
	}
	h, err := parse1(b)
	if err != nil {
		return nil, err
	}
	h.place = p.place()
	return h, nil
}

// put1 writes the header with its first keyslot: the sector without magic first.
func (p *plan) put1(e *Editor, k *Keyslot) error {
	encodeSlot1(e.h.luks1.raw, k.ID, k)
	return e.put1(e.h.luks1.raw, true)
}
