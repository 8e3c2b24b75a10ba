package luks

import (
	"bytes"
	"testing"

	"keyway/test/fixtures"
)

// TestWrittenAnewIsEqual: what cryptsetup wrote is written again to equal bytes, both
// copies of every LUKS2 fixture that has them whole.
func TestWrittenAnewIsEqual(t *testing.T) {
	n := 0
	for _, d := range fixtures.LUKS(t) {
		if d.Type != "luks2" {
			continue
		}
		dev, _ := d.Devices(t)
		h, err := Read(bytes.NewReader(dev), int64(len(dev)), Options{Data: -1})
		if err != nil {
			continue
		}
		copies, err := h.encode2(h.meta, h.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range h.Copies {
			if c.Err != nil || c.Epoch != h.Epoch {
				continue
			}
			n++
			if !bytes.Equal(copies[i], dev[c.Offset:][:h.Size]) {
				t.Errorf("%s: copy %d is written otherwise", d.Name, i+1)
			}
		}
	}
	if n < 26 {
		t.Errorf("%d copies compared, want at least 26", n)
	}
}
