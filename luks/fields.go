package luks

import (
	"encoding/base64"
	"fmt"
	"strconv"
)

// fields takes values out of metadata. The first that is not as the format has it
// is in err, with its path; what is returned then, and from then on, is zero.
type fields struct{ err error }

func (f *fields) fail(path, format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: "+format, append([]any{path}, args...)...)
	}
}

// need returns the member of an object, which must be there and of that kind.
func (f *fields) need(v *value, path, name string, kind byte) *value {
	if m := f.may(v, path, name, kind); m != nil || f.err != nil {
		return m
	}
	f.fail(path+"."+name, "is missing")
	return nil
}

// may is need for a member that may be absent: nil then.
func (f *fields) may(v *value, path, name string, kind byte) *value {
	if v == nil || f.err != nil {
		return nil
	}
	m := v.get(name)
	if m != nil && m.kind != kind {
		f.fail(path+"."+name, "is not %s", map[byte]string{'{': "an object", '[': "an array", '"': "a string", '0': "a number"}[kind])
		return nil
	}
	return m
}

// maxWord bounds names of ciphers, hashes and types, in bytes.
const maxWord = 128

// word is a string without blanks and control characters: some become words of a
// table.
func (f *fields) word(v *value, path, name string) string {
	m := f.need(v, path, name, '"')
	if m == nil {
		return ""
	}
	return f.wordOf(m, path+"."+name)
}

func (f *fields) wordOf(m *value, path string) string {
	if m.kind != '"' {
		f.fail(path, "is not a string")
		return ""
	}
	if m.text == "" || len(m.text) > maxWord {
		f.fail(path, "has %d bytes, not 1 to %d", len(m.text), maxWord)
		return ""
	}
	for i := range len(m.text) {
		if c := m.text[i]; c <= ' ' || c >= 0x7f {
			f.fail(path, "byte %d is a blank or not printable", i)
			return ""
		}
	}
	return m.text
}

// integer is a number from lo to hi.
func (f *fields) integer(v *value, path, name string, lo, hi int) int {
	m := f.need(v, path, name, '0')
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(m.text, 10, 64)
	if err != nil || n < int64(lo) || n > int64(hi) {
		f.fail(path+"."+name, "%.40s is not a whole number from %d to %d", m.text, lo, hi)
		return 0
	}
	return int(n)
}

// maxBytes bounds sizes and offsets, so that sums of two do not overflow.
const maxBytes = 1 << 62

// big is a number of 64 bits in a string, at most hi.
func (f *fields) big(v *value, path, name string, hi uint64) uint64 {
	m := f.need(v, path, name, '"')
	if m == nil {
		return 0
	}
	n, err := decimal(m.text)
	if err != nil || n > hi {
		f.fail(path+"."+name, "%.40q is not a decimal number up to %d", m.text, hi)
		return 0
	}
	return n
}

func (f *fields) bytes(v *value, path, name string) int64 {
	return int64(f.big(v, path, name, maxBytes))
}

// decimal parses digits alone: strconv takes a sign too.
func decimal(s string) (uint64, error) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, strconv.ErrSyntax
		}
	}
	return strconv.ParseUint(s, 10, 64)
}

// base64 is a string of lo to hi bytes in base64.
func (f *fields) base64(v *value, path, name string, lo, hi int) []byte {
	m := f.need(v, path, name, '"')
	if m == nil {
		return nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(m.text)
	if err != nil {
		f.fail(path+"."+name, "is not base64")
		return nil
	}
	if len(b) < lo || len(b) > hi {
		f.fail(path+"."+name, "has %d bytes, not %d to %d", len(b), lo, hi)
		return nil
	}
	return b
}

// words is an array of strings; nil if it may be, and is, absent.
func (f *fields) words(v *value, path, name string) (out []string) {
	m := f.may(v, path, name, '[')
	if m == nil {
		return nil
	}
	for i, e := range m.items {
		out = append(out, f.wordOf(e, fmt.Sprintf("%s.%s[%d]", path, name, i)))
	}
	return out
}

// ids is an array of the numbers of objects, each of which exists.
func (f *fields) ids(v *value, path, name string, exists func(int) bool) (out []int) {
	m := f.need(v, path, name, '[')
	if m == nil {
		return nil
	}
	seen := map[string]bool{}
	for i, e := range m.items {
		at := fmt.Sprintf("%s.%s[%d]", path, name, i)
		id, ok := parseID(f.wordOf(e, at))
		switch {
		case f.err != nil:
			return nil
		case !ok || !exists(id):
			f.fail(at, "there is no %.40q", e.text)
		case seen[e.text]:
			f.fail(at, "%q is there twice", e.text)
		}
		seen[e.text] = true
		out = append(out, id)
	}
	return out
}

// maxID is the highest number of a keyslot, token, digest or segment.
const maxID = 31

// parseID parses a number that is a name: without leading zeroes.
func parseID(s string) (int, bool) {
	n, err := decimal(s)
	return int(n), err == nil && n <= maxID && strconv.FormatUint(n, 10) == s
}

// each calls do with every member of an object whose members are numbered objects.
func (f *fields) each(v *value, name string, do func(id int, o *value, path string)) {
	list := f.need(v, "metadata", name, '{')
	if list == nil {
		return
	}
	for _, m := range list.members {
		path := name + "." + quotedName(m.name)
		id, ok := parseID(m.name)
		switch {
		case !ok:
			f.fail(path, "the name is not a number up to %d", maxID)
		case m.v.kind != '{':
			f.fail(path, "is not an object")
		default:
			do(id, m.v, path)
		}
		if f.err != nil {
			return
		}
	}
}

// quotedName is a name of metadata for an error: as it is, or quoted if it is long or
// has what could steer a terminal.
func quotedName(s string) string {
	const enough = 40 // bytes
	if q := strconv.QuoteToASCII(s); len(s) <= enough && q == `"`+s+`"` {
		return s
	}
	return fmt.Sprintf("%+.40q", s)
}
