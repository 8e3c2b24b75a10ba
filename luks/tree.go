package luks

import (
	"encoding/base64"
	"strconv"
)

// Values of metadata as it is written. What is there is kept with its order, so
// that members which nobody here knows survive a change.

func str(s string) *value { return &value{kind: '"', text: s} }

func num(n int) *value { return &value{kind: '0', text: strconv.Itoa(n)} }

// big is a number of 64 bits, which metadata has in strings.
func big(n int64) *value { return str(strconv.FormatInt(n, 10)) }

func b64(b []byte) *value { return str(base64.StdEncoding.EncodeToString(b)) }

func obj(m ...member) *value { return &value{kind: '{', members: m} }

func strs(s []string) *value {
	v := &value{kind: '['}
	for _, e := range s {
		v.items = append(v.items, str(e))
	}
	return v
}

// idList is an array of the numbers of objects.
func idList(ids []int) *value {
	v := &value{kind: '['}
	for _, id := range ids {
		v.items = append(v.items, str(strconv.Itoa(id)))
	}
	return v
}

// clone returns a copy that shares nothing with v that set and remove change.
func (v *value) clone() *value {
	c := &value{kind: v.kind, text: v.text}
	for _, m := range v.members {
		c.members = append(c.members, member{m.name, m.v.clone()})
	}
	for _, e := range v.items {
		c.items = append(c.items, e.clone())
	}
	return c
}

// set gives an object a member, in the place of the one with that name or at the
// end.
func (v *value) set(name string, e *value) {
	for i := range v.members {
		if v.members[i].name == name {
			v.members[i].v = e
			return
		}
	}
	v.members = append(v.members, member{name, e})
}

// setID is set for an object whose members are numbered: they stay in order.
func (v *value) setID(id int, e *value) {
	at := len(v.members)
	for i := range v.members {
		n, _ := parseID(v.members[i].name)
		if n == id {
			v.members[i].v = e
			return
		}
		if n > id {
			at = min(at, i)
		}
	}
	v.members = append(v.members, member{})
	copy(v.members[at+1:], v.members[at:])
	v.members[at] = member{strconv.Itoa(id), e}
}

// remove takes a member out of an object, if it is there.
func (v *value) remove(name string) {
	for i := range v.members {
		if v.members[i].name == name {
			v.members = append(v.members[:i], v.members[i+1:]...)
			return
		}
	}
}

// removeID is remove for an object whose members are numbered.
func (v *value) removeID(id int) { v.remove(strconv.Itoa(id)) }

// compact appends v as it is stored: without blanks.
func (v *value) compact(b []byte) []byte {
	switch v.kind {
	case '{':
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(printString(b, m.name), ':')
			b = m.v.compact(b)
		}
		return append(b, '}')
	case '[':
		b = append(b, '[')
		for i, e := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.compact(b)
		}
		return append(b, ']')
	case '"':
		return printString(b, v.text)
	}
	return append(b, v.text...)
}
