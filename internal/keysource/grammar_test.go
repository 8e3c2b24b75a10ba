package keysource

import (
	"errors"
	"strings"
	"testing"
)

func TestSourcesAreWrittenOneWay(t *testing.T) {
	for _, c := range []struct {
		text, want string // from directory /d
		words      []string
	}{
		{"file:k", "file:/d/k", nil},
		{"./k", "file:/d/k", nil},
		{"../k", "file:/k", nil},
		{"/a/../k", "file:/k", nil},
		{"file:/a%20b%3Fc%25", "file:/a%20b%3Fc%25", nil},
		{"/ä&k?encoding=hex", "file:/ä%26k?encoding=hex", nil},
		{"file:/%FF", "file:/%FF", nil},
		{"-", "stdin:", nil},
		{"fd:7", "fd:7", nil},
		{"prompt:?encoding=base64", "prompt:?encoding=base64", nil},
		{"systemd:disk0", "systemd:disk0", nil},
		{"systemd-creds:x.cred?name=disk0", "systemd-creds:/d/x.cred?name=disk0", nil},
		{"exec:./get?arg=a%26b&timeout=5s", "exec:/d/get?arg=a%26b&timeout=5s", nil},
		{"exec:/get?arg=a", "exec:/get?arg=a&arg=b%20c&arg=", []string{"b c", ""}},
		{"age:k.age?key-file=p", "age:/d/k.age?key-file=/d/p", nil},
		{"age:k.age?max-work-factor=18&identity=id", "age:/d/k.age?identity=/d/id&max-work-factor=18", nil},
		{"luks:i.img?key-slot=3&header-policy=strict&credential=c", "luks:/d/i.img?credential=c&key-slot=3&header-policy=strict", nil},
	} {
		s := parse(t, c.text, c.words...).Abs("/d")
		if got := s.String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.text, got, c.want)
		}
		if again := parse(t, s.String()).String(); again != c.want {
			t.Errorf("%s: read again it is %s", c.want, again)
		}
	}
}

func TestWrongSourcesAreRefused(t *testing.T) {
	key := strings.Repeat("0f", 32)
	for _, c := range []struct{ text, want, way string }{
		{"", "is empty", ""},
		{key, "does not begin with a known scheme (known: age, exec, fd, file,", "a file is file:PATH"},
		{"disk0.key", "does not begin with a known scheme", "a file is file:PATH"},
		{"fill:x", `did you mean "file"?`, ""},
		{"file:", "PATH is missing", "it is written file:PATH"},
		{"file:a%2", "per cent sign", "it is written"},
		{"file:a%zz", "per cent sign", "it is written"},
		{"file:a%00b", "byte of zero", ""},
		{"file:a?encoding", "has no value", ""},
		{"file:a?encoding=rot13", `option "encoding" is not raw, hex, base64`, ""},
		{"file:a?encoding=hex&encoding=hex", "given twice", ""},
		{"file:a?encodin=hex", `unknown option, did you mean "encoding"?`, ""},
		{"file:a?x=" + key, "unknown option (known: encoding)", ""},
		{"-x", "does not begin", ""},
		{"stdin:x", "nothing belongs behind the colon", "it is written -"},
		{"fd:", "N is missing", ""},
		{"fd:-1", "number of a descriptor", ""},
		{"fd:03", "number of a descriptor", ""},
		{"fd:99999999", "number of a descriptor", ""},
		{"systemd:a/b", "no slash", ""},
		{"systemd:..", "no slash", ""},
		{"systemd:" + strings.Repeat("x", 256), "1 to 255", ""},
		{"systemd-creds:p?name=a%2Fb", "no slash", ""},
		{"exec:ls", "not looked for", "it is written exec:PROGRAM[?arg=WORD][&timeout=TIME]"},
		{"exec:/bin/ls?timeout=0s", "is not a time from 1s to 10m0s", ""},
		{"exec:/bin/ls?timeout=1h", "is not a time", ""},
		{"exec:/bin/ls?timeout=5s&timeout=6s", "given twice", ""},
		{"age:f?identity=a&key-file=b", `option "key-file" does not go with "identity"`, ""},
		{"age:f?identity=", "is empty", ""},
		{"age:f?max-work-factor=23", "is not a number from 0 to 22", ""},
		{"age:f?max-work-factor=007", "is not a number", ""},
		{"luks:f?key-slot=32", "is not a number from 0 to 31", ""},
		{"luks:f?key-file=a&credential=b", "does not go with", ""},
		{"luks:f?header-policy=lax", "is not strict, permissive", ""},
		{"exec:/x?" + strings.Repeat("arg=a&", 300), "more than 256 options", ""},
		{"file:" + strings.Repeat("x", 9000), "9005 characters", ""},
	} {
		s, err := Parse(c.text)
		if err == nil {
			t.Errorf("%.60s: taken as %s", c.text, s)
			continue
		}
		h, _ := errors.AsType[advised](err)
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(h.way, c.way) {
			t.Errorf("%.60s: %v (%s), want %s (%s)", c.text, err, h.way, c.want, c.way)
		}
		if strings.Contains(err.Error()+h.way, key) {
			t.Errorf("%.60s: the error repeats what may be a key", c.text)
		}
	}
	if _, err := Parse("file:x", "word"); err == nil || !strings.Contains(err.Error(), "only a program takes arguments") {
		t.Errorf("a file with arguments: %v", err)
	}
}

// Who will be there to answer decides whether a daemon can read a source again.
func TestFleetingSourcesSaySo(t *testing.T) {
	for text, lasting := range map[string]bool{
		"-": false, "fd:3": false, "prompt:": false, "luks:x": false, "age:x": false,
		"/x": true, "systemd:x": true, "systemd-creds:x": true, "exec:/x": true,
		"luks:x?key-file=y": true, "luks:x?credential=y": true, "age:x?identity=y": true,
		"age:x?identity-credential=y": true, "age:x?key-file=y": true, "age:x?credential=y": true,
	} {
		if why := parse(t, text).Fleeting(); (why == "") != lasting {
			t.Errorf("%s: %q", text, why)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"-", "/a b", "fd:3", "file:x?encoding=hex", "exec:/x?arg=a%26&arg=%FF&timeout=5s", "age:x?identity=y&max-work-factor=18", "luks:x?key-slot=1", "systemd:n", "prompt:", "%"} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, text, word string) {
		var words []string
		if word != "" {
			words = []string{word}
		}
		s, err := Parse(text, words...)
		if err != nil {
			return
		}
		if s.Place != s.Abs("/d").Place && !s.scheme.Path {
			t.Errorf("%q: a place that is no path becomes one", text)
		}
		a := s.Abs("/d/e")
		if b := a.Abs("/f"); b.String() != a.String() {
			t.Errorf("%q: absolute %q, then %q", text, a, b)
		}
		for _, x := range []*Source{s, a} {
			again, err := Parse(x.String())
			if errIsTooLong(x.String()) {
				continue
			}
			if err != nil {
				t.Fatalf("%q: its text %q: %v", text, x, err)
			}
			if again.String() != x.String() || again.Place != x.Place || strings.Join(again.options["arg"], "\x00") != strings.Join(x.options["arg"], "\x00") {
				t.Errorf("%q: its text %q is another source, %q", text, x, again)
			}
		}
		for _, c := range s.String() {
			if c < ' ' || c == 0x7f {
				t.Errorf("%q: its text %q does not print", text, s)
			}
		}
	})
}

// errIsTooLong: what is quoted may be longer than what was read.
func errIsTooLong(text string) bool { return len(text) > maxWord }

func FuzzDecode(f *testing.F) {
	f.Add([]byte("00 ff\n"), true)
	f.Add([]byte("AA=="), false)
	f.Fuzz(func(t *testing.T, text []byte, isHex bool) {
		if len(text) == 0 || len(text) > maxText {
			return
		}
		b, err := copyOf(text)
		if err != nil {
			t.Fatal(err)
		}
		encoding := "base64"
		if isHex {
			encoding = "hex"
		}
		out, err := decode(b, encoding)
		if !b.Wiped() {
			t.Error("the text is not wiped")
		}
		if err == nil {
			if out.Len() == 0 || out.Len() > len(text) {
				t.Errorf("%d bytes of %d", out.Len(), len(text))
			}
			out.Wipe()
		}
	})
}
