package nearest

import "testing"

func TestOf(t *testing.T) {
	names := []string{"file", "mem", "nbd", "nbd+unix", "direct", "data-unit"}
	for got, want := range map[string]string{
		"fiel": "file", "File": "file", "me": "mem", "memm": "mem", "dirct": "direct", "data_unit": "data-unit",
		"nbd-unix": "nbd+unix", "s3": "", "": "", "tape": "", "backend": "", "nb": "nbd",
	} {
		if near := Of(got, names); near != want {
			t.Errorf("Of(%q) = %q, want %q", got, near, want)
		}
	}
	if near := Of("x", nil); near != "" {
		t.Errorf("Of nothing = %q", near)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abcd", "badc", 2}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
