package daemon

import (
	"encoding/json"
	"testing"
	"time"

	"keyway/fscrypt"
	"keyway/fscrypt/volume"
)

func TestBadNamesAreInNoArchive(t *testing.T) {
	for name, bad := range map[string]bool{
		"a": false, "a/b": false, "...": false, "a/..b": false, "\xff": false, "": true, ".": true, "..": true, "a/../b": true, "/a": true, "a//b": true, "a\x00b": true,
	} {
		if err := badName(name); (err != nil) != bad {
			t.Errorf("%q: %v, want an error: %v", name, err, bad)
		}
	}
}

func TestPathsAreCleanAndShownOnOneLine(t *testing.T) {
	for path, want := range map[string]string{"": "", "/": "", "//a//./b/": "a/b", "../..": "", "a/../../b": "b", "a\n": "a\n"} {
		if got := cleanPath(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string]string{"": "/", "a b": "a b", "a\n": `"a\n"`, "\x1b[2J": `"\x1b[2J"`, "\xff": `"\xff"`, "\uFFFD": "\uFFFD", "\u0085": `"\u0085"`, "\u202e": `"\u202e"`} {
		if got := shown(path); got != want {
			t.Errorf("%q: %s, want %s", path, got, want)
		}
	}
}

// What to do about a key depends on which were given.
func TestMissingKeyHasAHint(t *testing.T) {
	m, err := fscrypt.NewMasterKey(make([]byte, 32))
	must(t, err)
	defer m.Wipe()
	v1, v2 := &volume.NoKeyError{Spec: fscrypt.DescriptorSpec([8]byte{1})}, &volume.NoKeyError{Spec: fscrypt.IdentifierSpec([16]byte{1})}
	none, one := &files{}, &files{keys: []filesKey{{MasterKey: m}}}
	for _, c := range []struct {
		x    *files
		err  error
		want string
	}{
		{none, v1, "--key gives a master key; \"keyway fscrypt status\" lists the policies and which keys they need"},
		{none, v2, "--key gives a master key; \"keyway fscrypt status\" lists the policies and which keys they need"},
		{one, v1, "--key 0100000000000000=SOURCE says that a key was added under this descriptor"},
		{one, v2, "another key is needed: given is " + m.Spec().String()},
	} {
		if got := Hint(c.x.hint(c.err)); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// f2fs has 64 bits of seconds; JSON has years of four digits.
func TestLateTimesCanBeTold(t *testing.T) {
	x := &files{}
	for _, sec := range []int64{1 << 40, 1<<63 - 1, -1 << 63, -1 << 40, 1234567890} {
		f := &volume.File{Facts: volume.Facts{Type: volume.Regular, Modified: time.Unix(sec, 5).UTC()}}
		e := x.entry("f", f)
		if _, err := json.Marshal(e); err != nil {
			t.Errorf("%d: %v", sec, err)
		}
		if sec == 1234567890 && !e.Modified.Equal(f.Modified) {
			t.Errorf("%v, want %v", e.Modified, f.Modified)
		}
	}
}
