package luks

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
)

// The header of LUKS1, big endian.
const (
	size1      = 592
	slots1     = 8
	uuid1At    = 168
	slot1At    = 208
	slot1Bytes = 48
	slot1Torn  = 6  // its entry lies across two sectors
	digest1    = 20 // bytes of the digest of the volume key
	active1    = 0x00ac71f3
	inactive1  = 0x0000dead
	cipher1At  = 8   // 32 bytes, then 32 of the mode and 32 of the hash
	payload1At = 104 // sectors; then u32 bytes of the key, and the digest
)

// luks1 keeps how LUKS1 says what segments and keyslots say of it in its stead, and
// the header itself.
type luks1 struct {
	cipher, mode, hash string
	raw                []byte
}

// read1 reads a header of LUKS1 and describes it as LUKS2 would.
func read1(r io.ReaderAt, size int64, detached bool) (*Header, error) {
	b := make([]byte, size1)
	if size < size1 {
		return nil, fmt.Errorf("the header is cut off: the device has %d bytes, and it takes %d", size, size1)
	}
	if err := readFull(r, b, 0); err != nil {
		return nil, err
	}
	h, err := parse1(b)
	if err != nil {
		return nil, err
	}
	if h.Segments[0].Offset == 0 && !detached {
		return nil, fmt.Errorf("payload offset: 0: the data is apart from the header, on a device that has to be named")
	}
	return h, nil
}

func parse1(b []byte) (*Header, error) {
	f := &fields{}
	text := func(at, n int, name string) string {
		s, err := cString(b[at:at+n], name)
		if err != nil {
			f.fail("header", "%w", err)
			return ""
		}
		return s
	}
	word := func(at int, name string) string {
		s := text(at, 32, name)
		return f.wordOf(&value{kind: '"', text: s}, name)
	}
	be := binary.BigEndian
	l := luks1{word(cipher1At, "cipher name"), word(cipher1At+32, "cipher mode"), word(cipher1At+64, "hash"), b}
	payload, key := int64(be.Uint32(b[payload1At:])), be.Uint32(b[payload1At+4:])
	iterations := be.Uint32(b[164:])
	uuid := text(uuid1At, 40, "uuid")
	switch {
	case f.err != nil:
		return nil, f.err
	case key == 0 || key > maxKey:
		return nil, fmt.Errorf("key bytes: %d is not 1 to %d", key, maxKey)
	case iterations == 0 || iterations > 1<<31-1:
		return nil, fmt.Errorf("iterations of the digest: %d is not 1 to %d", iterations, 1<<31-1)
	}
	h := &Header{
		Version: 1, UUID: uuid, Size: size1, luks1: l, Copies: []Copy{{Used: true}},
		Segments: []Segment{{
			Type: "crypt", Offset: payload * sectorBytes, Size: -1, Encryption: l.cipher + "-" + l.mode, SectorSize: sectorBytes,
		}},
	}
	d := Digest{Type: "pbkdf2", Hash: l.hash, Iterations: int(iterations), Digest: b[112:132], Salt: b[132:164], Segments: []int{0}}
	for i := range slots1 {
		s := b[slot1At+i*slot1Bytes:][:slot1Bytes]
		k, err := h.parseSlot1(i, s, int(key))
		if err != nil {
			return nil, fmt.Errorf("keyslot %d: %w", i, err)
		}
		if k != nil {
			h.Keyslots = append(h.Keyslots, *k)
			d.Keyslots = append(d.Keyslots, i)
		}
	}
	h.Digests = []Digest{d}
	// With the payload at 0 the header is detached.
	if off := h.Segments[0].Offset; off > 0 {
		for _, k := range h.Keyslots {
			if end := k.Area.Offset + k.Area.Size; end > off {
				return nil, fmt.Errorf("keyslot %d: its material ends at byte %d, and the data begins at %d", k.ID, end, off)
			}
		}
	}
	return h, nil
}

// parseSlot1 returns nil for a keyslot that is not in use.
func (h *Header) parseSlot1(id int, s []byte, key int) (*Keyslot, error) {
	be := binary.BigEndian
	switch state := be.Uint32(s); state {
	case inactive1:
		return nil, nil
	case active1:
	default:
		return nil, fmt.Errorf("state: %#x is neither active nor inactive", state)
	}
	iterations, off, n := be.Uint32(s[4:]), int64(be.Uint32(s[40:]))*sectorBytes, be.Uint32(s[44:])
	switch {
	case iterations == 0 || iterations > 1<<31-1:
		return nil, fmt.Errorf("iterations: %d is not 1 to %d", iterations, 1<<31-1)
	case n != stripes:
		return nil, fmt.Errorf("stripes: %d, not %d", n, stripes)
	case off < size1:
		return nil, fmt.Errorf("key material offset: byte %d lies within the header", off)
	}
	return &Keyslot{
		ID: id, Type: "luks2", KeySize: key, Priority: 1,
		Area: Area{Type: "raw", Offset: off, Size: materialSize(key), Encryption: h.Segments[0].Encryption, KeySize: key},
		KDF:  KDF{Type: "pbkdf2", Hash: h.luks1.hash, Iterations: int(iterations), Salt: s[8:40]},
		AF:   AF{stripes, h.luks1.hash},
	}, nil
}

// metadata1 says what a header of LUKS1 does in the words of LUKS2.
func (h *Header) metadata1() *value {
	slots, ids := obj(), &value{kind: '['}
	for _, k := range h.Keyslots {
		ids.items = append(ids.items, str(strconv.Itoa(k.ID)))
		slots.members = append(slots.members, member{strconv.Itoa(k.ID), obj(
			member{"type", str("luks1")}, member{"key_size", num(k.KeySize)},
			member{"af", obj(member{"type", str("luks1")}, member{"stripes", num(k.AF.Stripes)}, member{"hash", str(k.AF.Hash)})},
			member{"area", obj(member{"type", str("raw")}, member{"offset", big(k.Area.Offset)}, member{"size", big(k.Area.Size)},
				member{"encryption", str(k.Area.Encryption)}, member{"key_size", num(k.Area.KeySize)})},
			member{"kdf", obj(member{"type", str("pbkdf2")}, member{"hash", str(k.KDF.Hash)},
				member{"iterations", num(k.KDF.Iterations)}, member{"salt", b64(k.KDF.Salt)})},
		)})
	}
	s, d := &h.Segments[0], &h.Digests[0]
	return obj(
		member{"keyslots", slots}, member{"tokens", obj()},
		member{"segments", obj(member{"0", obj(member{"type", str("crypt")}, member{"offset", big(s.Offset)}, member{"size", str("dynamic")},
			member{"iv_tweak", str("0")}, member{"encryption", str(s.Encryption)}, member{"sector_size", num(s.SectorSize)})})},
		member{"digests", obj(member{"0", obj(member{"type", str("pbkdf2")}, member{"keyslots", ids},
			member{"segments", &value{kind: '[', items: []*value{str("0")}}}, member{"hash", str(d.Hash)},
			member{"iterations", num(d.Iterations)}, member{"salt", b64(d.Salt)}, member{"digest", b64(d.Digest)})})},
		member{"config", obj()},
	)
}
