package history

import "testing"

// Two parts of one request that lie upon each other: what was found there is what is
// read, and a crash may bring back either, also after a flush, as package model's
// disk does. What was there before is gone.
func TestCrashMayBringBackEitherOfTwoThatOverlap(t *testing.T) {
	content := func(b byte) []byte {
		d := make([]byte, sector)
		for i := range d {
			d[i] = b
		}
		return d
	}
	fill := func() *medium {
		m := newMedium(sector)
		for _, b := range []byte{1, 2} {
			m.begin(6, 35, 0, sector, content(b))
		}
		m.end(6, 36, 0, sector, true, false)
		if err := m.settle(37, content(2)); err != nil {
			t.Fatal(err)
		}
		m.flush(41)
		return m
	}
	for b, ok := range map[byte]bool{0: false, 1: true, 2: true} {
		if err := fill().crash(content(b)); (err == nil) != ok {
			t.Errorf("version %d after the crash: %v", b, err)
		}
	}
	if m := fill(); m.reads(0, content(1), window{45, 45}) || !m.reads(0, content(2), window{45, 45}) {
		t.Error("a read shows what was not found")
	}
}
