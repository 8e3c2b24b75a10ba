package luks

import (
	"testing"
	"testing/fstest"
)

func TestLimitOfTheControlGroup(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	groups := fstest.MapFS{
		"memory.max":               file("8000\n"),
		"a/memory.max":             file("max\n"),
		"a/b/memory.max":           file("3000\n"),
		"a/b/c/memory.max":         file("5000\n"),
		"other.slice/x/memory.max": file("1\n"),
	}
	for of, want := range map[string]uint64{
		"0::/\n": 8000, "0::/a\n": 8000, "0::/a/b\n": 3000, "0::/a/b/c\n": 3000, "0::/a/b/c/none\n": 3000,
		"12:memory:/other.slice/x\n0::/a\n": 8000, // version 1 has other files
		"0::/../../etc\n":                   8000, // a group outside of the name space
		"":                                  0,
	} {
		if got := groupLimit(groups, []byte(of)); got != want {
			t.Errorf("%q: %d bytes, want %d", of, got, want)
		}
	}
	if got := groupLimit(fstest.MapFS{}, []byte("0::/a\n")); got != 0 {
		t.Errorf("without limits: %d bytes", got)
	}
	if memory() == 0 {
		t.Error("nothing is known of this machine")
	}
}
