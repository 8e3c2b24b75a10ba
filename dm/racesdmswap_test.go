//go:build invariants || race

package dm_test

import (
	"strings"
	"testing"

	"keyway/dm"
	"keyway/internal/interleave"
)

// Race 17 of dm-fscrypt.md, section 15: swaps that fail.

// wantText checks the text of a device's live or inactive table.
func (b *blkWorld) wantText(name string, inactive bool, want string) {
	if got := strings.TrimSpace(b.Device(name).TableText(inactive, dm.StatusTable)); got != want {
		b.w.Errorf("table of %s (inactive: %v) is %q, want %q", name, inactive, got, want)
	}
}

// wantOpen checks how often a device is open: a table that was closed twice, or never,
// shows there.
func (b *blkWorld) wantOpen(name string, want int) {
	if st := b.Device(name).State(); st.Open != want {
		b.w.Errorf("%s is open %d times, by %q, want %d", name, st.Open, st.Holders, want)
	}
}

// Race 17: a reload fails and puts back the table that was loaded before, while another
// device gets a table over this one. Had the loaded table left the graph meanwhile, a
// cycle could close behind its back, and it could not come back (invariants 24 and 35).
func TestDMRace17FailedReloadAgainstACycle(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: staged", "dm: discarding"},
		Outcomes: []string{"refused"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disks("a", "b")
			b.Map("low", "0 128 linear b 0")
			b.Map("vol", "0 64 linear a 0")
			b.Map("x", "0 64 linear b 0")
			bad := b.Table("0 128 linear low 0")
			b.Reload("low", "0 64 linear b 0")
			if err := b.Device("vol").Load(w.Ctx, b.Table("0 64 linear x 0")); err != nil {
				w.Fatal(err)
			}
			w.Go("reload", func() {
				err := b.Device("vol").Reload(w.Ctx, bad, dm.SuspendOptions{})
				if err == nil || !strings.Contains(err.Error(), "has shrunk") {
					w.Errorf("reload onto a device that has shrunk: %v", err)
				}
			})
			w.Go("cycle", func() {
				// A table that would close the cycle as soon as both are live.
				err := b.Device("x").Reload(w.Ctx, b.Table("0 64 linear vol 0"), dm.SuspendOptions{})
				if err == nil || !strings.Contains(err.Error(), "stand on itself") {
					w.Errorf("a reload that closes a cycle: %v (invariant 35)", err)
					return
				}
				w.Outcome("refused")
			})
			w.Check(func() {
				b.wantText("vol", false, "0 64 linear a 0")
				b.wantText("vol", true, "0 64 linear x 0")
				b.wantText("x", false, "0 64 linear b 0")
				b.wantOpen("x", 2) // the test and the loaded table
				b.wantOpen("low", 1)
				if err := b.Device("vol").Resume(w.Ctx); err != nil {
					w.Errorf("plain resume: %v", err)
				}
				b.wantText("vol", false, "0 64 linear x 0")
			})
		},
	})
}
