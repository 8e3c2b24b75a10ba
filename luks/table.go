package luks

import (
	"fmt"
	"slices"
	"strings"
)

// options of dm-crypt that a header may ask for, by the names of its flags, in the
// order in which dm-crypt prints them. Flags that are not here are advice for
// others.
var options = []struct{ flag, option string }{
	{"allow-discards", "allow_discards"}, {"same-cpu-crypt", "same_cpu_crypt"},
	{"submit-from-crypt-cpus", "submit_from_crypt_cpus"},
	{"no-read-workqueue", "no_read_workqueue"}, {"no-write-workqueue", "no_write_workqueue"},
}

// Table returns the rows of dm-crypt under which the data is read and written, one
// for each segment: on dev, a device of data bytes as a table spells it, with the
// key that the reference key names (":64:logon:name"). Numbers of sectors in it are
// of 512 bytes, and the IV counts such sectors also where sector_size is larger.
//
// It refuses whenever Writable does, and if the data is not there, is not encrypted
// or has integrity tags, for which it takes another target. ReadTable is for volumes
// that are only read.
func (h *Header) Table(v *Volume, dev string, data int64, key string) (string, error) {
	if err := h.Writable(); err != nil {
		return "", err
	}
	return h.table(v, dev, data, key)
}

// ReadTable is Table for a device that nobody writes to. It is not refused for
// requirements that nobody here knows, but for what Readable says.
func (h *Header) ReadTable(v *Volume, dev string, data int64, key string) (string, error) {
	if err := h.Readable(); err != nil {
		return "", err
	}
	return h.table(v, dev, data, key)
}

func (h *Header) table(v *Volume, dev string, data int64, key string) (string, error) {
	var d *Digest
	for i := range h.Digests {
		if h.Digests[i].ID == v.Digest {
			d = &h.Digests[i]
		}
	}
	var rows strings.Builder
	at := int64(0)
	for i := range h.Segments {
		s := &h.Segments[i]
		if s.Backup() {
			continue
		}
		size, off := s.Size, s.Offset-h.place.shift
		if size < 0 {
			size = data - off
		}
		switch {
		case s.Type != "crypt":
			return "", fmt.Errorf("luks: segment %d is not encrypted: its type is %s", s.ID, s.Type)
		case s.Integrity != "":
			return "", fmt.Errorf("luks: segment %d has integrity tags (%s): %w", s.ID, s.Integrity, ErrUnsupported)
		case d == nil || !slices.Contains(d.Segments, s.ID):
			return "", fmt.Errorf("luks: keyslot %d does not hold the key of segment %d", v.Slot, s.ID)
		case size <= 0 || size > data-off:
			return "", fmt.Errorf("luks: segment %d begins at byte %d and has %s of a device of %d", s.ID, off, sizeText(s.Size), data)
		case size%int64(s.SectorSize) != 0:
			return "", fmt.Errorf("luks: segment %d has %d bytes, not a multiple of its sector size, %d: make the device longer or shorter", s.ID, size, s.SectorSize)
		}
		fmt.Fprintf(&rows, "%d %d crypt %s %s %d %s %d", at/sectorBytes, size/sectorBytes, s.Encryption, key, s.IVTweak, dev, off/sectorBytes)
		rows.WriteString(h.rowOptions(s) + "\n")
		at += size
	}
	return rows.String(), nil
}

// rowOptions returns the number and the options at the end of a row, nothing if
// there are none.
func (h *Header) rowOptions(s *Segment) string {
	var out []string
	for _, o := range options {
		if slices.Contains(h.Flags, o.flag) {
			out = append(out, o.option)
		}
	}
	if s.SectorSize != sectorBytes {
		out = append(out, fmt.Sprintf("sector_size:%d", s.SectorSize))
	}
	if out == nil {
		return ""
	}
	return fmt.Sprintf(" %d %s", len(out), strings.Join(out, " "))
}
