package luks

import (
	"fmt"
	"strings"
)

// Text describes the header for people, in lines; nothing in it is secret, and what
// the header says of itself is quoted, so that it cannot steer a terminal.
func (h *Header) Text() string {
	var b strings.Builder
	line := func(indent int, name, format string, args ...any) {
		fmt.Fprintf(&b, "%*s%-*s %s\n", 2*indent, "", 18-2*indent, name+":", fmt.Sprintf(format, args...))
	}
	line(0, "Version", "LUKS%d", h.Version)
	line(0, "UUID", "%s", printable(h.UUID))
	if h.Version == 2 {
		h.text2(line)
	}
	for i := range h.Segments {
		s := &h.Segments[i]
		line(0, fmt.Sprintf("Segment %d", s.ID), "%s", s.Type)
		size := "to the end of the device"
		if s.Size >= 0 {
			size = fmt.Sprintf("%d bytes", s.Size)
		}
		line(1, "Data", "from byte %d, %s", s.Offset, size)
		if s.Type == "crypt" {
			line(1, "Cipher", "%s, sectors of %d bytes", s.Encryption, s.SectorSize)
		}
		if s.IVTweak != 0 {
			line(1, "IV offset", "%d sectors of 512 bytes", s.IVTweak)
		}
		if s.Integrity != "" {
			line(1, "Integrity", "%s", s.Integrity)
		}
		if s.Flags != nil {
			line(1, "Flags", "%s", strings.Join(s.Flags, ", "))
		}
	}
	for i := range h.Keyslots {
		h.textSlot(line, &h.Keyslots[i])
	}
	for _, t := range h.Tokens {
		line(0, fmt.Sprintf("Token %d", t.ID), "%s for keyslots %s", t.Type, ids(t.Keyslots))
	}
	for _, d := range h.Digests {
		line(0, fmt.Sprintf("Digest %d", d.ID), "%s of keyslots %s for segments %s", d.Type, ids(d.Keyslots), ids(d.Segments))
		if d.Type == "pbkdf2" {
			line(1, "Iterations", "%d of %s", d.Iterations, d.Hash)
			line(1, "Salt", "%x", d.Salt)
			line(1, "Digest", "%x", d.Digest)
		}
	}
	for _, why := range h.Obstacles() {
		line(0, "Not writable", "%s", why)
	}
	return b.String()
}

func (h *Header) text2(line func(int, string, string, ...any)) {
	line(0, "Label", "%s", printable(h.Label))
	line(0, "Subsystem", "%s", printable(h.Subsystem))
	line(0, "Epoch", "%d", h.Epoch)
	for i, c := range h.Copies {
		state := "good"
		if c.Err != nil {
			state = "damaged: " + c.Err.Error()
		} else if c.Used {
			state = "good, used here"
		}
		line(0, fmt.Sprintf("Header copy %d", i+1), "at byte %d, %d bytes, %s", c.Offset, h.Size, state)
	}
	line(0, "Keyslots area", "%d bytes", h.KeyslotsSize)
	flags := "none"
	if h.Flags != nil {
		flags = strings.Join(h.Flags, ", ")
	}
	line(0, "Flags", "%s", flags)
}

func (h *Header) textSlot(line func(int, string, string, ...any), k *Keyslot) {
	unbound := ""
	if h.Unbound(k.ID) {
		unbound = ", unbound"
	}
	line(0, fmt.Sprintf("Keyslot %d", k.ID), "key of %d bits, priority %s%s", 8*k.KeySize, [...]string{"ignored", "normal", "preferred"}[k.Priority], unbound)
	line(1, "Area", "%d bytes from byte %d", k.Area.Size, k.Area.Offset)
	if k.Type != "luks2" {
		line(1, "Type", "%s", k.Type)
		return
	}
	line(1, "Cipher", "%s, key of %d bits", k.Area.Encryption, 8*k.Area.KeySize)
	if d := &k.KDF; d.Type == "pbkdf2" {
		line(1, "Derivation", "%s, %d iterations of %s", d.Type, d.Iterations, d.Hash)
	} else {
		line(1, "Derivation", "%s, %d passes over %d KiB, %d lanes", d.Type, d.Time, d.Memory, d.CPUs)
	}
	line(1, "Salt", "%x", k.KDF.Salt)
	line(1, "Split", "%d stripes, %s", k.AF.Stripes, k.AF.Hash)
}

func printable(s string) string {
	if s == "" {
		return "(none)"
	}
	q := fmt.Sprintf("%q", s)
	if q == `"`+s+`"` {
		return s
	}
	return q
}

func ids(n []int) string {
	if len(n) == 0 {
		return "none"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(n), " ", ", "), "[]")
}
