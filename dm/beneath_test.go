package dm_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// readOnlyWorld opens its disk "ro" only for reading.
type readOnlyWorld struct{ *dmtest.World }

func (w readOnlyWorld) Open(ctx context.Context, name string, readOnly bool) (block.Device, error) {
	if name == "ro" && !readOnly {
		return nil, errors.New("permission denied")
	}
	return w.World.Open(ctx, name, readOnly)
}

// TestOriginMayBeReadOnly: a target that only reads a device takes one that cannot
// be written, or opened for writing, in a table that is not read-only; others do
// not.
func TestOriginMayBeReadOnly(t *testing.T) {
	w := readOnlyWorld{dmtest.New(t)}
	for _, name := range []string{"ro", "declared"} {
		d := dmtest.NewRAM(1 << 20)
		d.SetInfo(func(i *block.Info) { i.ReadOnly = true })
		w.Leaf(name, d, nil)
	}
	w.Disk("cow", 1<<20, 0)
	for table, want := range map[string]string{
		"0 2048 snapshot ro cow N 8":       "",
		"0 2048 snapshot declared cow N 8": "",
		"0 2048 snapshot-origin ro":        "permission denied",
		"0 2048 snapshot-origin declared":  "is read-only, and the table is not",
		"0 2048 snapshot cow declared N 8": "is read-only, and the table is not",
		"0 2048 snapshot none cow N 8":     `no device "none"`,
		"0 2049 snapshot ro cow N 8":       "is too small",
	} {
		tab, err := dm.Parse(t.Context(), table, w, dm.ParseOptions{})
		if err != nil || want != "" {
			if err == nil || want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", table, err, want)
			}
			continue
		}
		m := dm.New("snap", dm.Options{})
		if err := m.Reload(t.Context(), tab, dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		h, err := m.Open("the test")
		if err != nil {
			t.Fatal(err)
		}
		dmtest.Write(t, h, 0, []byte(strings.Repeat("written.", 64)))
		if got := dmtest.Read(t, h, 0, 512); !strings.HasPrefix(string(got), "written.") {
			t.Errorf("%s: what was written does not read back", table)
		}
		if h.Close(); m.Remove(t.Context(), dm.RemoveOptions{}) != nil {
			t.Error("not removed")
		}
	}
	for _, name := range []string{"ro", "declared", "cow"} {
		if s := w.Device(name).State(); s.Open != 0 {
			t.Errorf("%s is open %d times", name, s.Open)
		}
	}
}
