package luks

import (
	"cmp"
	"fmt"
	"slices"
)

// Bounds of the metadata. A key has 64 bytes for XTS, 96 with a MAC, at most some
// 2 KiB for 64 keys and a seed (lmk).
const (
	maxKey          = 4096
	stripes         = 4000 // of every AF split: cryptsetup makes no other
	sectorBytes     = 512
	maxKeyslotsSize = 128 << 20
)

// readMetadata reads and checks the JSON of a LUKS2 header.
func (h *Header) readMetadata(detached bool) error {
	f := &fields{}
	h.readConfig(f)
	f.each(h.meta, "keyslots", func(id int, o *value, path string) { h.readKeyslot(f, id, o, path) })
	f.each(h.meta, "segments", func(id int, o *value, path string) { h.readSegment(f, id, o, path) })
	hasSlot := func(id int) bool { return h.keyslot(id) != nil }
	f.each(h.meta, "digests", func(id int, o *value, path string) {
		d := Digest{ID: id, Type: f.word(o, path, "type")}
		d.Keyslots = f.ids(o, path, "keyslots", hasSlot)
		d.Segments = f.ids(o, path, "segments", func(id int) bool { return h.segment(id) != nil })
		if d.Type == "pbkdf2" {
			d.Hash = f.word(o, path, "hash")
			d.Iterations = f.integer(o, path, "iterations", 1, 1<<31-1)
			d.Salt = f.base64(o, path, "salt", 8, 64)
			// SHA-1's 20 bytes come from LUKS1, MD5's 16 from whoever asks cryptsetup for
			// it: its name is what is refused. A short one would take any key.
			d.Digest = f.base64(o, path, "digest", 16, 64)
		}
		h.Digests = append(h.Digests, d)
	})
	f.each(h.meta, "tokens", func(id int, o *value, path string) {
		h.Tokens = append(h.Tokens, Token{id, f.word(o, path, "type"), f.ids(o, path, "keyslots", hasSlot), o})
	})
	if f.err != nil {
		return f.err
	}
	slices.SortFunc(h.Keyslots, func(a, b Keyslot) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(h.Segments, func(a, b Segment) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(h.Digests, func(a, b Digest) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(h.Tokens, func(a, b Token) int { return cmp.Compare(a.ID, b.ID) })
	return h.checkMetadata(detached)
}

func (h *Header) readConfig(f *fields) {
	const path = "config"
	o := f.need(h.meta, "metadata", "config", '{')
	if n := f.bytes(o, path, "json_size"); f.err == nil && n != h.Size-binarySize {
		f.fail("config.json_size", "%d, and the header has room for %d", n, h.Size-binarySize)
	}
	h.KeyslotsSize = f.bytes(o, path, "keyslots_size")
	if n := h.KeyslotsSize; n%binarySize != 0 || n > maxKeyslotsSize {
		f.fail("config.keyslots_size", "%d is not a multiple of %d up to %d", n, binarySize, maxKeyslotsSize)
	}
	h.Flags = f.words(o, path, "flags")
	if r := f.may(o, path, "requirements", '{'); r != nil {
		h.Requirements = f.words(r, "config.requirements", "mandatory")
	}
}

func (h *Header) readKeyslot(f *fields, id int, o *value, path string) {
	k := Keyslot{ID: id, Type: f.word(o, path, "type"), KeySize: f.integer(o, path, "key_size", 1, maxKey), Priority: 1}
	if o.get("priority") != nil {
		k.Priority = f.integer(o, path, "priority", 0, 2)
	}
	area := f.need(o, path, "area", '{')
	at := path + ".area"
	k.Area = Area{Type: f.word(area, at, "type"), Offset: f.bytes(area, at, "offset"), Size: f.bytes(area, at, "size")}
	lo := 2 * h.Size
	if a := k.Area; f.err == nil && (a.Offset < lo || a.Size > h.KeyslotsSize || a.Offset-lo > h.KeyslotsSize-a.Size) {
		f.fail(at, "bytes %d to %d are not within the keyslots area, %d to %d", a.Offset, a.Offset+a.Size, lo, lo+h.KeyslotsSize)
	}
	if k.Area.Offset%sectorBytes != 0 || k.Area.Size%sectorBytes != 0 {
		f.fail(at, "bytes %d to %d are not whole sectors", k.Area.Offset, k.Area.Offset+k.Area.Size)
	}
	if k.Type == "luks2" {
		h.readLUKS2Slot(f, &k, o, area, path)
	}
	h.Keyslots = append(h.Keyslots, k)
}

func (h *Header) readLUKS2Slot(f *fields, k *Keyslot, o, area *value, path string) {
	at := path + ".area"
	if f.err == nil && k.Area.Type != "raw" {
		f.fail(at+".type", "%q is not raw", k.Area.Type)
	}
	k.Area.Encryption = f.word(area, at, "encryption")
	k.Area.KeySize = f.integer(area, at, "key_size", 1, maxKey)

	af := f.need(o, path, "af", '{')
	at = path + ".af"
	if t := f.word(af, at, "type"); f.err == nil && t != "luks1" {
		f.fail(at+".type", "%q is not luks1", t)
	}
	k.AF = AF{f.integer(af, at, "stripes", stripes, stripes), f.word(af, at, "hash")}
	if need := materialSize(k.KeySize); f.err == nil && k.Area.Size < need {
		f.fail(path+".area.size", "%d bytes are too few for a key of %d: %d", k.Area.Size, k.KeySize, need)
	}

	kdf := f.need(o, path, "kdf", '{')
	at = path + ".kdf"
	d := &k.KDF
	d.Type = f.word(kdf, at, "type")
	d.Salt = f.base64(kdf, at, "salt", 8, 64)
	switch d.Type {
	case "pbkdf2":
		d.Hash = f.word(kdf, at, "hash")
		d.Iterations = f.integer(kdf, at, "iterations", 1, 1<<31-1)
	case "argon2i", "argon2id":
		d.Time = f.integer(kdf, at, "time", 1, 1<<31-1)
		d.CPUs = f.integer(kdf, at, "cpus", 1, 255)
		// RFC 9106: 8 blocks of 1 KiB for each lane.
		d.Memory = f.integer(kdf, at, "memory", 8*max(d.CPUs, 1), 1<<31-1)
	default:
		f.fail(at+".type", "%q is not known", d.Type)
	}
}

// materialSize is what a split key takes on disk, in bytes.
func materialSize(key int) int64 {
	n := int64(key) * stripes
	return (n + sectorBytes - 1) / sectorBytes * sectorBytes
}

func (h *Header) readSegment(f *fields, id int, o *value, path string) {
	s := Segment{ID: id, Type: f.word(o, path, "type"), Offset: f.bytes(o, path, "offset"), Size: -1, SectorSize: sectorBytes}
	if v := f.need(o, path, "size", '"'); v != nil && v.text != "dynamic" {
		if s.Size = f.bytes(o, path, "size"); s.Size == 0 {
			f.fail(path+".size", "is zero")
		}
	}
	s.Flags = f.words(o, path, "flags")
	switch s.Type {
	case "crypt":
		s.Encryption = f.word(o, path, "encryption")
		s.IVTweak = f.big(o, path, "iv_tweak", 1<<64-1)
		s.SectorSize = f.integer(o, path, "sector_size", 512, 4096)
		if n := s.SectorSize; n&(n-1) != 0 {
			f.fail(path+".sector_size", "%d is not a power of two", n)
		}
		if v := f.may(o, path, "integrity", '{'); v != nil {
			s.Integrity = f.word(v, path+".integrity", "type")
		}
	case "linear":
	default:
		f.fail(path+".type", "%q is not known", s.Type)
	}
	if f.err == nil {
		switch n := int64(s.SectorSize); {
		case s.Offset%sectorBytes != 0:
			f.fail(path+".offset", "%d is not a multiple of %d", s.Offset, sectorBytes)
		case s.Size > 0 && s.Size%n != 0:
			f.fail(path+".size", "%d is not a multiple of the sector size, %d", s.Size, n)
		}
	}
	h.Segments = append(h.Segments, s)
}

// checkMetadata checks what only shows between objects.
func (h *Header) checkMetadata(detached bool) error {
	end := 2*h.Size + h.KeyslotsSize
	next := 0
	for i := range h.Segments {
		s := &h.Segments[i]
		path := fmt.Sprintf("segments.%d", s.ID)
		// 0 is the start of another device. What else there is lies behind the header,
		// also on a device of its own: cryptsetup takes no other.
		if (!detached || s.Offset > 0) && s.Offset < end {
			return fmt.Errorf("%s.offset: %d lies within the header, which ends at %d", path, s.Offset, end)
		}
		if s.Backup() {
			continue
		}
		if s.ID != next {
			return fmt.Errorf("segments: %d is missing before %d", next, s.ID)
		}
		next++
	}
	if next == 0 {
		return fmt.Errorf("segments: there is none")
	}
	for i := range next {
		b := &h.Segments[i]
		if b.Size < 0 && i < next-1 {
			return fmt.Errorf("segments.%d.size: only the last segment is dynamic", b.ID)
		}
		for j := range i {
			a := &h.Segments[j] // never dynamic
			if b.Offset < a.Offset+a.Size && (b.Size < 0 || a.Offset < b.Offset+b.Size) {
				return fmt.Errorf("segments.%d: overlaps segment %d", b.ID, a.ID)
			}
		}
	}
	return h.checkDigests()
}

// checkDigests makes sure that one digest at most speaks for a keyslot.
func (h *Header) checkDigests() error {
	of := map[int]int{}
	for _, d := range h.Digests {
		for _, k := range d.Keyslots {
			if other, twice := of[k]; twice {
				return fmt.Errorf("digests.%d.keyslots: keyslot %d has digest %d already", d.ID, k, other)
			}
			of[k] = d.ID
		}
	}
	return nil
}
