package luks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// pageBytes is to what cryptsetup rounds a backup of LUKS1.
const pageBytes = 4096

// backupSize is how many bytes a backup of the header has, of which the header has
// the first end; zeroes follow.
func (h *Header) backupSize() (size, end int64) {
	if h.Version == 2 {
		n := 2*h.Size + h.KeyslotsSize
		return n, n
	}
	for _, s := range h.used1(-1) {
		end = max(end, s.off+s.size)
	}
	return roundUp(end, pageBytes), end
}

// Backup writes what cryptsetup's luksHeaderBackup does: the header and its key
// material as they are. r is the device that the header was read from. Whoever has
// the backup opens the volume with the passphrases of today, also after they were
// removed.
func (h *Header) Backup(r io.ReaderAt, w io.Writer) error {
	n, end := h.backupSize()
	if h.Version == 2 {
		end = min(end, h.place.size) // of a detached header whose file is cut off
	}
	b := make([]byte, min(n, fillBytes))
	for at := int64(0); at < n; at += int64(len(b)) {
		b = b[:min(int64(len(b)), n-at)]
		has := max(0, min(int64(len(b)), end-at))
		clear(b[has:])
		if err := readFull(r, b[:has], at); err != nil {
			return fmt.Errorf("luks: backup: %w", err)
		}
		if at == 0 && h.Version == 1 && h.home1(0) >= areaAlign {
			clear(b[size1:areaAlign]) // remnants of what was there before
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("luks: backup: %w", err)
		}
	}
	return nil
}

// ErrMismatch: a backup is of another header than that which is there.
var ErrMismatch = errors.New("the backup does not fit what is there")

// Restore writes a backup of backupSize bytes over the header on m, which has size
// bytes, and returns the header that is there then. o says where the data is. All
// passphrases of the present header are gone then but for those that the backup has
// too.
//
// ErrMismatch lists why the backup may be the wrong one: there is no header, or it
// has another UUID, key or place of the data, or a reencryption is under way. force
// goes on all the same. What is no whole backup, or does not fit on m, is refused
// even then.
//
// An interrupted Restore is done again: the backup is still there.
func Restore(m Medium, size int64, backup io.ReaderAt, backupSize int64, o Options, force bool) (*Header, error) {
	b, err := readBackup(backup, backupSize, o)
	if err != nil {
		return nil, fmt.Errorf("luks: backup: %w", err)
	}
	_, n := b.backupSize()
	switch end := b.Segments[0].Offset; {
	case n > size:
		return nil, fmt.Errorf("luks: the backup takes %d bytes of a device of %d", n, size)
	case o.Data == 0 && end == 0:
		return nil, errors.New("luks: the backup is of a header in a file of its own, and would be written over the data: name that file (--header)")
	case o.Data == 0 && end < n:
		return nil, fmt.Errorf("luks: backup: the data begins at byte %d of its %d", end, n)
	}
	if why := b.differs(m, size, o); why != nil && !force {
		return nil, fmt.Errorf("luks: %w: %s", ErrMismatch, strings.Join(why, "; "))
	}
	if err := b.restore(m, backup, n); err != nil {
		return nil, fmt.Errorf("luks: restore: %w: do it again with the same backup", err)
	}
	return Read(m, size, o)
}

// readBackup checks a backup: a header on a device as long as itself.
func readBackup(r io.ReaderAt, size int64, o Options) (*Header, error) {
	// The data is elsewhere as far as the backup is concerned.
	h, err := Read(r, size, Options{Policy: o.Policy, Data: -1})
	if err != nil {
		return nil, err
	}
	if n, _ := h.backupSize(); size != n {
		return nil, fmt.Errorf("it has %d bytes, and the header in it takes %d", size, n)
	}
	if c := slices.IndexFunc(h.Copies, func(c Copy) bool { return c.Err != nil }); c >= 0 {
		return nil, fmt.Errorf("header copy %d: %w", c+1, h.Copies[c].Err)
	}
	return h, nil
}

// differs says why h, of a backup, may not be what belongs on m.
func (h *Header) differs(m Medium, size int64, o Options) (why []string) {
	why = append(why, h.reencryption()...)
	old, err := Read(m, size, o)
	if err != nil {
		return append(why, fmt.Sprintf("the device has no header (%v), and what is there would be overwritten", err))
	}
	for _, d := range []struct {
		what     string
		now, new any
	}{
		{"version", old.Version, h.Version},
		{"UUID", printable(old.UUID), printable(h.UUID)},
		{"data offset", old.Segments[0].Offset, h.Segments[0].Offset},
		{"size of a header copy", old.Size, h.Size},
		{"keyslots size", old.KeyslotsSize, h.KeyslotsSize},
		{"cipher", old.Segments[0].Encryption, h.Segments[0].Encryption},
		{"sector size", old.Segments[0].SectorSize, h.Segments[0].SectorSize},
		{"number of segments", len(old.Segments), len(h.Segments)},
		{"key size", old.volumeKeySize(), h.volumeKeySize()},
	} {
		if d.now != d.new {
			why = append(why, fmt.Sprintf("the %s there is %v, and in the backup %v", d.what, d.now, d.new))
		}
	}
	if !slices.ContainsFunc(old.keysOfData(), func(d []byte) bool {
		return slices.ContainsFunc(h.keysOfData(), func(e []byte) bool { return bytes.Equal(d, e) })
	}) {
		why = append(why, "the volume key there is another than in the backup, as after a reencryption: what the backup opens does not read the data")
	}
	return append(why, old.reencryption()...)
}

// keysOfData are the digests by which the key of the first segment is recognised. They
// stay for as long as the key does, whatever becomes of its passphrases.
func (h *Header) keysOfData() (digests [][]byte) {
	for i := range h.Digests {
		if d := &h.Digests[i]; slices.Contains(d.Segments, 0) {
			digests = append(digests, d.Digest)
		}
	}
	return digests
}

// volumeKeySize is the size of the key of the data, in bytes; 0 if no keyslot tells.
func (h *Header) volumeKeySize() int {
	if h.Version == 1 {
		return h.keySize1()
	}
	for i := range h.Keyslots {
		if d := h.digestOf(h.Keyslots[i].ID); d != nil && slices.Contains(d.Segments, 0) {
			return h.Keyslots[i].KeySize
		}
	}
	return 0
}

// restore copies n bytes: key material first, then the copies of the header one
// after the other.
func (h *Header) restore(m Medium, backup io.ReaderAt, n int64) error {
	heads := []span{{h.Size, h.Size}, {0, h.Size}}
	if h.Version == 1 {
		heads = []span{{sectorBytes, areaAlign - sectorBytes}, {0, sectorBytes}}
	}
	body := heads[0].off + heads[0].size
	for at := body; at < n; at += fillBytes {
		if err := copySpan(m, backup, span{at, min(fillBytes, n-at)}); err != nil {
			return err
		}
	}
	if err := durable(m); err != nil {
		return err
	}
	for _, s := range heads {
		if err := copySpan(m, backup, s); err != nil {
			return err
		}
		if err := durable(m); err != nil {
			return err
		}
	}
	return nil
}

func copySpan(m Medium, from io.ReaderAt, s span) error {
	b := make([]byte, s.size)
	if err := readFull(from, b, s.off); err != nil {
		return err
	}
	return writeFull(m, b, s.off)
}
