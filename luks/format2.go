package luks

import (
	"context"
	"fmt"
)

// format writes a header and its first keyslot.
func (p *plan) format(ctx context.Context, m Medium, v *Volume, passphrase []byte) (*Editor, error) {
	h, err := p.header(ctx, v)
	if err != nil {
		return nil, err
	}
	e := &Editor{m: m, h: h}
	// All that can be refused is found before the first write.
	k, err := e.newSlot(ctx, p.Slot, p.KeySize, p.Key)
	if err != nil {
		return nil, fmt.Errorf("keyslot %d: %w", p.Slot, err)
	}
	if err := p.prove(h, k); err != nil {
		return nil, err
	}
	// Nor is anything waited for after it: who interrupts loses nothing.
	material, err := k.seal(ctx, v.Key.Bytes(), passphrase)
	if err != nil {
		return nil, fmt.Errorf("keyslot %d: key material: %w", p.Slot, err)
	}
	defer material.Wipe()
	if err := p.erase(m); err != nil {
		return nil, err
	}
	if err := store(m, material.Bytes(), k.Area.Offset); err != nil {
		return nil, fmt.Errorf("keyslot %d: key material: %w", p.Slot, err)
	}
	if p.Version == 1 {
		return e, p.put1(e, k)
	}
	return e, e.putSlot(k, 0)
}

// prove makes the header that format ends with, for the rules of what is read to
// find faults in it.
func (p *plan) prove(h *Header, k *Keyslot) error {
	if p.Version == 1 {
		return nil // header1 parses it
	}
	meta := h.meta.clone()
	meta.get("keyslots").setID(k.ID, k.value())
	meta.get("digests").get("0").set("keyslots", idList([]int{k.ID}))
	_, _, err := h.next2(meta)
	return err
}

// header makes a header without keyslots.
func (p *plan) header(ctx context.Context, v *Volume) (*Header, error) {
	iterations, err := digestIterations(ctx, p.Key.KDF, p.Hash)
	if err != nil {
		return nil, err
	}
	if p.Version == 1 {
		return p.header1(ctx, v, iterations)
	}
	f, err := newHash(p.Hash)
	if err != nil {
		return nil, err
	}
	defer f.Wipe()
	d, err := newDigest(ctx, v.Key.Bytes(), p.Hash, iterations, f.Size())
	if err != nil {
		return nil, err
	}
	config := obj(member{"json_size", big(p.MetadataSize - binarySize)}, member{"keyslots_size", big(p.KeyslotsSize)})
	if p.Flags != nil {
		config.set("flags", strs(p.Flags))
	}
	h := &Header{
		Version: 2, UUID: p.UUID, Label: p.Label, Subsystem: p.Subsystem, Size: p.MetadataSize, KeyslotsSize: p.KeyslotsSize,
		checksum: "sha256", place: p.place(),
		Copies: []Copy{{Used: true}, {Offset: p.MetadataSize}},
		meta: obj(
			member{"keyslots", obj()}, member{"tokens", obj()},
			member{"segments", obj(member{"0", obj(
				member{"type", str("crypt")}, member{"offset", big(p.DataOffset)}, member{"size", str("dynamic")},
				member{"iv_tweak", str("0")}, member{"encryption", str(p.Cipher)}, member{"sector_size", num(p.SectorSize)},
			)})},
			member{"digests", obj(member{"0", d.value()})},
			member{"config", config},
		),
	}
	copies, err := h.encode2(h.meta, 0)
	if err != nil {
		return nil, err
	}
	next, err := h.parseAgain(copies)
	if err != nil {
		return nil, err
	}
	return next, nil
}

// value is the digest in the metadata of LUKS2.
func (d *Digest) value() *value {
	return obj(
		member{"type", str("pbkdf2")}, member{"keyslots", idList(d.Keyslots)}, member{"segments", idList([]int{0})},
		member{"hash", str(d.Hash)}, member{"iterations", num(d.Iterations)}, member{"salt", b64(d.Salt)}, member{"digest", b64(d.Digest)},
	)
}

// erase removes what could be taken for a header, then fills the place of the new
// one: random bytes where key material goes, so that nobody can tell how much of it
// there is, and zeroes elsewhere.
func (p *plan) erase(m Medium) error {
	if err := p.eraseMagic(m); err != nil {
		return err
	}
	first, end := 2*p.MetadataSize, p.end()
	if p.Version == 1 {
		first = areaAlign
	}
	if err := overwrite(m, 0, first, false); err != nil {
		return err
	}
	if err := overwrite(m, first, end-first, true); err != nil {
		return err
	}
	if !p.Detached {
		return overwrite(m, end, p.DataOffset-end, false)
	}
	return nil
}

// eraseMagic makes every header of LUKS unreadable: the first copy, and a second one
// wherever it can be. Behind the new header there is data: there only what is a copy
// with a good checksum is touched. Nothing else is written yet, so that until this
// is durable the old header opens.
func (p *plan) eraseMagic(m Medium) error {
	if err := writeFull(m, make([]byte, sectorBytes), 0); err != nil {
		return err
	}
	for at := int64(minHdrSize); at <= maxHdrSize && at <= p.size-sectorBytes; at *= 2 {
		head := make([]byte, len(magic2nd))
		if err := readFull(m, head, at); err != nil {
			return err
		}
		if [6]byte(head) != magic2nd {
			continue
		}
		if _, err := readCopy(m, p.size, at, true); err != nil && at >= p.end() {
			continue
		}
		if err := writeFull(m, make([]byte, sectorBytes), at); err != nil {
			return err
		}
	}
	return durable(m)
}
