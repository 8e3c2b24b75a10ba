// Package luks reads and writes LUKS1 and LUKS2: it checks the header of an encrypted
// volume, finds the volume key with a passphrase, and says with which rows of dm-crypt
// the data is read; it makes headers (Format) and changes their keys and what else
// they say (Edit).
//
// Headers are untrusted input. Every number is bounded before it is used, JSON is
// taken only as the format has it (no key twice, no surplus bytes, numbers of 64
// bits as decimal strings), areas may neither overlap nor leave their place, and
// what a key derivation may cost is limited by a Policy. Of the two copies of a
// LUKS2 header one may be damaged: the other is used, and Header.Copies tells.
//
// What a header says about a reencryption under way or requirements that nobody
// here knows does not keep it from being read; Header.Obstacles lists it, and
// Header.Table and Edit refuse.
//
// Each change is whole or not there, whatever is lost or torn by a crash: new key
// material is durable before a header names it, of the two copies of a LUKS2 header
// one is always whole, and a keyslot of LUKS1 changes with one sector. Metadata is
// kept as it was read, so that members and tokens that nobody here knows survive.
//
// Passphrases, derived keys, key material and the volume key are in locked memory
// and wiped, the state of hash functions too; what computing with them leaves on
// stacks and in registers is overwritten. One exception depends on the machine: the
// working memory of Argon2 is outside of the Go heap, in no core dump, and always
// wiped, but locked only as far as RLIMIT_MEMLOCK allows, which is seldom a GiB.
//
// Sources: LUKS On-Disk Format Specification 1.2.3 and LUKS2 On-Disk Format
// Specification 1.1.1.
package luks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Errors, compared with errors.Is.
var (
	// ErrNotLUKS: there is no header of either version.
	ErrNotLUKS = errors.New("no LUKS header")
	// ErrPassphrase: no keyslot that was tried opens with the passphrase.
	ErrPassphrase = errors.New("no keyslot opens with this passphrase")
	// ErrUnbound: the passphrase is that of an unbound keyslot, whose key is not that of
	// the data.
	ErrUnbound = errors.New("holds a key of its own, and not that of the data: it is unbound")
	// ErrPolicy: the header is well formed, and the policy forbids what it asks for.
	ErrPolicy = errors.New("forbidden by the header policy")
	// ErrUnsupported: a cipher, hash or key derivation that is not built here.
	ErrUnsupported = errors.New("not supported")
)

// Header is a checked header. Nothing in it is secret. It is not changed after
// Read, so several goroutines may use it.
type Header struct {
	Version   int    // 1 or 2
	UUID      string // as written by who formatted; not checked
	Label     string // LUKS2
	Subsystem string // LUKS2
	Epoch     uint64 // LUKS2: sequence number, one more with every change
	Size      int64  // LUKS2: bytes of one copy, JSON included; LUKS1: 592

	Keyslots []Keyslot // by ID
	Segments []Segment // by ID
	Digests  []Digest  // by ID
	Tokens   []Token   // by ID

	KeyslotsSize int64    // LUKS2: bytes of the keyslots area, which begins after both copies
	Flags        []string // LUKS2: options for the activation, such as allow-discards
	Requirements []string // LUKS2: what a reader must know to touch the volume

	Copies []Copy // LUKS2: first and second; LUKS1: the only one

	meta     *value           // LUKS2: the metadata as written
	salts    [2][lenSalt]byte // LUKS2: of the copies; zeroes of a damaged one
	checksum string           // LUKS2: its algorithm
	policy   Policy
	place    place
	luks1    luks1
}

// place is where the header was found.
type place struct {
	detached bool
	size     int64 // of its device, bytes
	data     int64 // of the device of the data, or of the image of both; -1: not known
	shift    int64 // what of the offset of a segment lies on the device of the header
}

// A Copy is one of the two copies of a LUKS2 header.
type Copy struct {
	Offset int64  // bytes
	Epoch  uint64 // 0 if Err is set
	Err    error  // why it is not usable; nil: good
	Used   bool
}

// A Keyslot holds the volume key, encrypted under what its KDF makes of a passphrase.
type Keyslot struct {
	ID       int
	Type     string // luks2; others (reencrypt) are listed and never opened; luks1 slots have luks2 too
	KeySize  int    // bytes of the key within
	Priority int    // 0: only if asked for, 1: normal, 2: before the others
	Area     Area
	KDF      KDF
	AF       AF
}

// An Area is where a keyslot lies.
type Area struct {
	Type         string // raw, or none, journal, checksum, datashift of a reencryption
	Offset, Size int64  // bytes, on the device of the header
	Encryption   string // of its sectors, as dm-crypt spells it; "": not raw
	KeySize      int    // bytes, of that cipher
}

// A KDF makes a key of a passphrase.
type KDF struct {
	Type       string // pbkdf2, argon2i, argon2id
	Hash       string // pbkdf2
	Iterations int    // pbkdf2
	Time       int    // argon2: passes
	Memory     int    // argon2: KiB
	CPUs       int    // argon2: lanes
	Salt       []byte
}

// AF is the anti-forensic split of a key.
type AF struct {
	Stripes int
	Hash    string
}

// A Segment is a run of the data device.
type Segment struct {
	ID         int
	Type       string // crypt, linear
	Offset     int64  // bytes, on the data device
	Size       int64  // bytes; -1: to the end of the device ("dynamic")
	IVTweak    uint64 // sectors of 512 bytes, added to the number of the sector
	Encryption string // as dm-crypt spells it
	SectorSize int    // bytes
	Integrity  string // type of the integrity profile; "": none
	Flags      []string
}

// Backup reports whether the segment only tells how the volume was or will be
// outside a reencryption.
func (s *Segment) Backup() bool {
	return slices.ContainsFunc(s.Flags, func(f string) bool { return strings.HasPrefix(f, "backup-") })
}

// A Digest recognises the key of some keyslots, which opens some segments.
type Digest struct {
	ID         int
	Type       string // pbkdf2; others are listed and recognise nothing
	Hash       string
	Iterations int
	Salt       []byte
	Digest     []byte
	Keyslots   []int
	Segments   []int
}

// A Token says how to get the passphrase of some keyslots.
type Token struct {
	ID       int
	Type     string
	Keyslots []int
	meta     *value
}

// Options of Read. The zero value is a header on the device of its data under the
// permissive policy.
type Options struct {
	Policy Policy
	// Data is the size in bytes of the data device if the header is detached from
	// it, -1 if it is not known. 0: the header is at its start.
	Data int64
	// Exact: the device of the header ends where the data begins, that of the data
	// has nothing else, and one after the other they are an image with its header at
	// the start; see FormatOptions.Exact.
	Exact bool
}

var (
	magic1st = [6]byte{'L', 'U', 'K', 'S', 0xba, 0xbe}
	magic2nd = [6]byte{'S', 'K', 'U', 'L', 0xba, 0xbe}
)

// Read reads and checks the header at the start of r, which has size bytes. It reads
// at most both copies, 8 MiB. The error is ErrNotLUKS if there is none.
func Read(r io.ReaderAt, size int64, o Options) (*Header, error) {
	if size < 0 || size > maxBytes || o.Data < -1 || o.Data > maxBytes || o.Exact && o.Data == 0 {
		return nil, fmt.Errorf("luks: a device of %d bytes with %d of data", size, o.Data)
	}
	data, detached, shift := o.Data, o.Data != 0 && !o.Exact, int64(0)
	switch {
	case o.Exact:
		shift = size
		if data >= 0 {
			data += size
		}
	case data == 0:
		data = size
	}
	var head [8]byte
	if n, err := r.ReadAt(head[:], 0); err != nil && !(errors.Is(err, io.EOF) && n < len(head)) {
		return nil, &readError{fmt.Errorf("luks: read header: %w", err)}
	}
	var h *Header
	var err error
	if [6]byte(head[:6]) == magic1st && binary.BigEndian.Uint16(head[6:]) == 1 {
		h, err = read1(r, size, detached)
	} else {
		h, err = read2(r, size, detached)
	}
	if err != nil {
		return nil, fmt.Errorf("luks: %w", err)
	}
	h.policy, h.place = o.Policy, place{detached, size, data, shift}
	if err := h.checkAreas(size); err != nil {
		return nil, fmt.Errorf("luks: %w", err)
	}
	if err := h.allow(data); err != nil {
		return nil, fmt.Errorf("luks: %w", err)
	}
	for i := range h.Segments {
		if s := &h.Segments[i]; s.Offset < shift {
			return nil, fmt.Errorf("luks: segment %d: begins at byte %d, and the device of the header ends at %d", s.ID, s.Offset, shift)
		}
	}
	return h, nil
}

// Metadata returns the JSON of a LUKS2 header in the form in which cryptsetup
// prints it (luksDump --dump-json-metadata), without a newline at the end. For
// LUKS1 it is what a LUKS2 header would say of the same keyslots and data.
func (h *Header) Metadata() []byte {
	if h.meta == nil {
		return h.metadata1().print(nil, 0)
	}
	return h.meta.print(nil, 0)
}

// Obstacles says why nobody but the program that it waits for may write to the
// volume or its header, one reason an element; nil: nothing is in the way.
func (h *Header) Obstacles() []string { return append(h.reencryption(), h.unknown()...) }

// unknown says what only a newer program knows. It may be read past.
func (h *Header) unknown() (why []string) {
	for _, r := range h.Requirements {
		if !isReencryption(r) {
			why = append(why, fmt.Sprintf("requirement %q is not known here", r))
		}
	}
	for i := range h.Keyslots {
		if k := &h.Keyslots[i]; k.Type != "luks2" && k.Type != "reencrypt" {
			why = append(why, fmt.Sprintf("keyslot %d has type %q, which is not known here", k.ID, k.Type))
		}
	}
	return why
}

func isReencryption(requirement string) bool {
	return strings.HasPrefix(requirement, "online-reencrypt") || strings.HasPrefix(requirement, "offline-reencrypt")
}

// reencryption says how one shows that is under way: then parts of the data have
// another key, or are being moved, and cannot be read by what this header says alone.
func (h *Header) reencryption() (why []string) {
	for _, r := range h.Requirements {
		if isReencryption(r) {
			why = append(why, fmt.Sprintf("a reencryption is under way (requirement %q)", r))
		}
	}
	for i := range h.Keyslots {
		if k := &h.Keyslots[i]; k.Type == "reencrypt" {
			why = append(why, fmt.Sprintf("keyslot %d holds the state of a reencryption", k.ID))
		}
	}
	for i := range h.Segments {
		for _, f := range h.Segments[i].Flags {
			if f == "in-reencryption" || strings.HasPrefix(f, "backup-") {
				why = append(why, fmt.Sprintf("segment %d belongs to a reencryption (flag %q)", h.Segments[i].ID, f))
			}
		}
	}
	return why
}

// Writable returns the Obstacles as an error, nil if there are none.
func (h *Header) Writable() error {
	if err := h.Readable(); err != nil {
		return err
	}
	if why := h.unknown(); why != nil {
		return fmt.Errorf("luks: %s: it can be read only; write to it with a program that knows this", strings.Join(why, "; "))
	}
	return nil
}

// Readable returns an error if not even reading the volume is safe: a reencryption is
// under way, and what this header says of parts of the data is not true meanwhile.
func (h *Header) Readable() error {
	if why := h.reencryption(); why != nil {
		return fmt.Errorf("luks: %s: finish it with the program that began it, or restore a backup of the header", strings.Join(why, "; "))
	}
	return nil
}

// keyslot returns the keyslot with this number, nil if there is none.
func (h *Header) keyslot(id int) *Keyslot {
	for i := range h.Keyslots {
		if h.Keyslots[i].ID == id {
			return &h.Keyslots[i]
		}
	}
	return nil
}

// segment returns the segment with this number, nil if there is none.
func (h *Header) segment(id int) *Segment {
	for i := range h.Segments {
		if h.Segments[i].ID == id {
			return &h.Segments[i]
		}
	}
	return nil
}

// digestOf returns the digest that recognises the key of a keyslot, nil if none does.
func (h *Header) digestOf(slot int) *Digest {
	for i := range h.Digests {
		if slices.Contains(h.Digests[i].Keyslots, slot) {
			return &h.Digests[i]
		}
	}
	return nil
}

// checkAreas makes sure that keyslots lie on the device of the header, apart from
// each other.
func (h *Header) checkAreas(size int64) error {
	byOffset := slices.Clone(h.Keyslots)
	slices.SortFunc(byOffset, func(a, b Keyslot) int {
		switch {
		case a.Area.Offset < b.Area.Offset:
			return -1
		case a.Area.Offset > b.Area.Offset:
			return 1
		}
		return 0
	})
	for i := range byOffset {
		a := &byOffset[i]
		if end := a.Area.Offset + a.Area.Size; end > size {
			return fmt.Errorf("keyslot %d: area: ends at byte %d of a device of %d", a.ID, end, size)
		}
		if i > 0 {
			if b := &byOffset[i-1]; b.Area.Offset+b.Area.Size > a.Area.Offset {
				return fmt.Errorf("keyslots %d and %d: their areas overlap at byte %d", b.ID, a.ID, a.Area.Offset)
			}
		}
	}
	return nil
}
