package luks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// A value is a JSON value that remembers the order of members, which the standard
// maps do not: the metadata is printed as it was written.
type value struct {
	kind    byte // '{' '[' '"' '0' (a number) 'w' (a word: true, false, null)
	text    string
	members []member // of an object
	items   []*value // of an array
}

type member struct {
	name string
	v    *value
}

const (
	maxDepth = 32 // nested values: as many as json-c takes
	// A full header has some thousand; 4 MiB could hold two millions, which take 0.5 GB.
	maxValues = 1 << 15
)

var errTwice = errors.New("two members have the same name")

// parseJSON parses exactly one object: nothing before it and nothing behind it.
// No object may have two members of the same name: which of them counts differs
// between readers.
func parseJSON(b []byte) (*value, error) {
	switch {
	case len(b) == 0 || b[0] != '{':
		return nil, errors.New("does not begin with {")
	case b[len(b)-1] != '}':
		return nil, errors.New("does not end with }")
	case !utf8.Valid(b):
		return nil, errors.New("is not UTF-8")
	case !json.Valid(b):
		return nil, errors.New("is not one JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	left := maxValues
	return parseValue(d, 0, &left)
}

// parseValue takes what it reads from left, the number of values that there may be.
func parseValue(d *json.Decoder, depth int, left *int) (*value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("is nested more than %d deep", maxDepth)
	}
	if *left--; *left < 0 {
		return nil, fmt.Errorf("has more than %d values", maxValues)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case string:
		return &value{kind: '"', text: t}, nil
	case json.Number:
		return &value{kind: '0', text: t.String()}, nil
	case bool:
		return &value{kind: 'w', text: strconv.FormatBool(t)}, nil
	case nil:
		return &value{kind: 'w', text: "null"}, nil
	case json.Delim:
		v := &value{kind: byte(t)}
		seen := map[string]bool{}
		for d.More() {
			name := ""
			if t == '{' {
				n, err := d.Token()
				if err != nil {
					return nil, err
				}
				name = n.(string)
				if seen[name] {
					return nil, fmt.Errorf("%s: %w", quotedName(name), errTwice)
				}
				seen[name] = true
			}
			e, err := parseValue(d, depth+1, left)
			if err != nil {
				return nil, err
			}
			if t == '{' {
				v.members = append(v.members, member{name, e})
			} else {
				v.items = append(v.items, e)
			}
		}
		_, err := d.Token()
		return v, err
	}
	panic("luks: a JSON token of no kind")
}

// get returns the member with that name, nil if there is none.
func (v *value) get(name string) *value {
	for i := range v.members {
		if v.members[i].name == name {
			return v.members[i].v
		}
	}
	return nil
}

// print appends v as json-c prints it with two blanks for each level.
func (v *value) print(b []byte, level int) []byte {
	newline := func(n int) {
		b = append(b, '\n')
		for range n {
			b = append(b, ' ', ' ')
		}
	}
	switch v.kind {
	case '{':
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			newline(level + 1)
			b = append(printString(b, m.name), ':')
			b = m.v.print(b, level+1)
		}
		newline(level)
		return append(b, '}')
	case '[':
		b = append(b, '[')
		for i, e := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			newline(level + 1)
			b = e.print(b, level+1)
		}
		newline(level)
		return append(b, ']')
	case '"':
		return printString(b, v.text)
	}
	return append(b, v.text...)
}

func printString(b []byte, s string) []byte {
	const short = "\b\n\r\t\f\"\\"
	b = append(b, '"')
	for i := range len(s) {
		c := s[i]
		switch at := bytes.IndexByte([]byte(short), c); {
		case at >= 0:
			b = append(b, '\\', `bnrtf"\`[at])
		case c < ' ':
			b = fmt.Appendf(b, "\\u%04x", c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
