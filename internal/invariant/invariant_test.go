package invariant

import "testing"

func TestCheckPanicsOnlyWhenEnabled(t *testing.T) {
	caught := func(cond bool) (r any) {
		defer func() { r = recover() }()
		Check(cond, "pkg: broken")
		return nil
	}
	if r := caught(true); r != nil {
		t.Errorf("Check(true) panicked: %v", r)
	}
	want := any(nil)
	if Enabled {
		want = "invariant: pkg: broken"
	}
	if r := caught(false); r != want {
		t.Errorf("Check(false): panic value %v, want %v", r, want)
	}
}
