package backend

import (
	"context"
	"strings"
	"testing"

	"keyway/block"
)

func init() {
	Register(Type{
		Scheme: "test", Usage: "test:PLACE", Help: "for the tests of this package",
		Options: []Option{
			{Name: "size", Kind: Size, Default: "4K", Help: "a size"},
			{Name: "fast", Kind: Bool, Default: "0", Help: "a switch"},
			{Name: "word", Kind: Text, Default: "w", Help: "a text"},
		},
		Open: func(context.Context, Location, Options) (block.Device, error) { return nil, nil },
	})
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		uri, place string
		size       int64
		fast       bool
		word       string
	}{
		{"test:", "", 4096, false, "w"},
		{"test:a b", "a b", 4096, false, "w"},
		{"test:a%3Fb%20c%25?word=x%26y", "a?b c%", 4096, false, "x&y"},
		{"test:x?size=1M&fast=1&word=", "x", 1 << 20, true, ""},
		{"test:x?fast", "x", 4096, true, "w"},
		{"test:x?fast=off", "x", 4096, false, "w"},
		{"test:x?&fast=yes&", "x", 4096, true, "w"},
		{"test:a:b", "a:b", 4096, false, "w"},
	} {
		l, err := Parse(c.uri)
		if err != nil {
			t.Errorf("%s: %v", c.uri, err)
			continue
		}
		if l.Place != c.place || l.Size("size") != c.size || l.Bool("fast") != c.fast || l.Text("word") != c.word {
			t.Errorf("%s: place %q, size %d, fast %v, word %q", c.uri, l.Place, l.Size("size"), l.Bool("fast"), l.Text("word"))
		}
	}
	for uri, place := range map[string]string{"/dev/sda": "/dev/sda", "./disk.img": "./disk.img", "/a%20b?direct=1": "/a b"} {
		l, err := Parse(uri)
		if err != nil || l.typ.Scheme != "file" || l.Place != place {
			t.Errorf("%s: %+v, %v; want the file %s", uri, l, err, place)
		}
	}
}

func TestParseErrorsNameTheWayOut(t *testing.T) {
	for uri, wants := range map[string][]string{
		"fiel:disk":              {`unknown scheme "fiel", did you mean "file"?`, "known: file, mem"},
		"s3:bucket":              {`unknown scheme "s3" (known`},
		"disk.img":               {"file:disk.img", "starts with / or ./"},
		"":                       {"no scheme"},
		"file:disk?dirct=1":      {`unknown option "dirct", did you mean "direct"?`, "usage: file:PATH[?direct=1|0]"},
		"file:disk?direct=maybe": {`option "direct" is 1 or 0, not "maybe"`},
		"file:disk?direct=":      {`not ""`},
		"file:d?direct=1&direct": {"given twice"},
		"file:100%":              {"%25"},
		"test:x?size=12x":        {`option "size": size "12x"`, "usage: test:PLACE[?size=SIZE][&fast=1|0][&word=TEXT]"},
		"mem:1M?x=%zz":           {`option "x"`},
		"/disk?nope":             {"unknown option", "usage"},
	} {
		_, err := Parse(uri)
		if err == nil {
			t.Errorf("%q is accepted", uri)
			continue
		}
		for _, want := range append(wants, `"`+uri+`"`) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %q has no %q", uri, err, want)
			}
		}
	}
}

func TestIsURI(t *testing.T) {
	for name, want := range map[string]bool{
		"mem:1M": true, "file:x": true, "/dev/sda": true, "./x": true,
		"disk0": false, "": false, "vg:lv": false, "x/y": false,
	} {
		if got := IsURI(name); got != want {
			t.Errorf("IsURI(%q) = %v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, uri := range []string{"file:disk.img?direct=1", "mem:64M", "/a?b", "test:x?size=1K&word=%41"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		l, err := Parse(uri)
		if err == nil && l.typ == nil {
			t.Fatalf("%q: no type and no error", uri)
		}
		if err != nil && strings.TrimSpace(err.Error()) == "" {
			t.Fatalf("%q: an empty error", uri)
		}
	})
}
