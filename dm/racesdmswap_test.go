//go:build invariants || race

package dm_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"keyway/block"
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

// Race 17: a swap fails for each of its reasons, while somebody replaces or clears the
// table that is loaded, and requests come. The old table goes on serving, what was
// loaded is what the other one left there, every table is closed once, and a plain
// resume does what it says then (invariants 22, 24 and 38). A swap programs no engine
// and takes no memory for keys, so there is no failure of those to come back from.
func TestDMRace17FailedSwapAgainstTheLoadedTable(t *testing.T) {
	errFlush := errors.New("the cache does not flush")
	for name, c := range map[string]struct {
		bad     string // the table that cannot be made live
		refusal func(error) bool
		flush   error // of the disk of the old table
		clear   bool  // the other one clears the slot
	}{
		"a key in the way":          {onto("plain"), isStrands, nil, false},
		"a key in the way, cleared": {onto("plain"), isStrands, nil, true},
		"beneath too small":         {onto("low"), hasShrunk, nil, false},
		"flush":                     {onto("ufs1"), func(err error) bool { return errors.Is(err, errFlush) }, errFlush, false},
	} {
		t.Run(name, func(t *testing.T) {
			points := []string{"dm: staged", "dm: swapping", "dm: discarding"}
			if name == "flush" || name == "beneath too small" {
				points = []string{"dm: staged", "dm: admitted"}
			}
			interleave.Run(t, interleave.Race{Points: points, World: func(w *interleave.World) {
				p := newRacePhone(w, "ufs0", "ufs1", "plain")
				b := &blkWorld{World: p.World, w: w}
				p.Map("low", onto("plain"))
				vol := p.Map("vol", onto("ufs0"))
				m := p.Device("vol")
				k := p.raceKey(w)
				if _, err := vol.StartKey(k, "the test"); err != nil {
					w.Fatal(err)
				}
				bad := p.Table(c.bad)
				p.Reload("low", "0 64 linear plain 0")
				other := "0 64 linear ufs1 0"
				loaded := p.Table("0 32 linear ufs1 0")
				if err := m.Load(w.Ctx, loaded); err != nil {
					w.Fatal(err)
				}
				broken := c.flush
				p.disks["ufs0"].Before = func(_ context.Context, r block.Request) error {
					if r.Op == block.OpFlush {
						return broken
					}
					return nil
				}
				w.Go("reload", func() {
					if err := m.Reload(w.Ctx, bad, dm.SuspendOptions{}); err == nil || !c.refusal(err) {
						w.Errorf("reload: %v", err)
					}
				})
				w.Go("loader", func() {
					var err error
					if c.clear {
						err = m.Clear(w.Ctx)
					} else {
						err = m.Load(w.Ctx, p.Table(other))
					}
					if err != nil {
						w.Errorf("load or clear: %v", err)
					}
				})
				w.Go("write", func() {
					if err := vol.Do(w.Ctx, withKey(block.OpWrite, k, bytes.Clone(block4k))); err != nil {
						w.Errorf("write: %v", err)
					}
					if n := p.disks["ufs0"].Count(block.OpWrite); n != 1 {
						w.Errorf("%d writes came to the disk of the old table, want 1", n)
					}
				})
				w.Check(func() {
					b.wantText("vol", false, onto("ufs0"))
					b.wantOpen("ufs0", 1)
					b.wantOpen("low", 1)
					b.wantOpen("plain", 1) // by low
					want := other
					if c.clear {
						want = ""
					}
					b.wantText("vol", true, want)
					broken = nil
					if st := m.State(); st.Suspended {
						w.Errorf("after the refusal: %+v", st)
					}
					if err := m.Resume(w.Ctx); err != nil {
						w.Errorf("plain resume: %v", err)
					}
					if !c.clear {
						b.wantText("vol", false, other)
						b.wantOpen("ufs0", 0)
						b.wantOpen("ufs1", 1)
					}
				})
			}})
		})
	}
}

func isStrands(err error) bool { return errors.Is(err, dm.ErrStrands) }

func hasShrunk(err error) bool { return strings.Contains(err.Error(), "has shrunk") }

// Race 17 with resume in place of reload, on a suspended device: the loaded table is
// vetoed and stays, so that a plain resume is refused again, until it is replaced. Then
// it is the other table that comes, whoever was first; those who waited are served
// (invariants 19 and 24).
func TestDMRace17RefusedResumeAgainstALoader(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: rechecked", "dm: swapping"},
		Outcomes: []string{"refused", "resumed"},
		World: func(w *interleave.World) {
			p := newRacePhone(w, "ufs0", "ufs1", "plain")
			b := &blkWorld{World: p.World, w: w}
			vol := p.Map("vol", onto("ufs0"))
			m := p.Device("vol")
			k := p.raceKey(w)
			if _, err := vol.StartKey(k, "the test"); err != nil {
				w.Fatal(err)
			}
			if err := m.Suspend(w.Ctx, dm.SuspendOptions{}); err != nil {
				w.Fatal(err)
			}
			if err := m.Load(w.Ctx, p.Table(onto("plain"))); err != nil {
				w.Fatal(err)
			}
			w.Go("resume", func() {
				for {
					err := m.Resume(w.Ctx)
					if err == nil {
						w.Outcome("resumed")
						return
					}
					w.Outcome("refused")
					if st := m.State(); !isStrands(err) || !st.Suspended || !st.Inactive {
						w.Errorf("resume: %v; %+v", err, st)
						return
					}
					w.At("refused")
					if m.TableText(true, dm.StatusTable) == onto("plain")+"\n" {
						return // nothing has changed, and would not
					}
				}
			})
			w.Go("loader", func() {
				if err := m.Load(w.Ctx, p.Table(onto("ufs1"))); err != nil {
					w.Errorf("load: %v", err)
				}
				w.At("loaded")
				if err := m.Resume(w.Ctx); err != nil {
					w.Errorf("resume: %v", err)
				}
			})
			w.Go("write", func() {
				if err := vol.Do(w.Ctx, withKey(block.OpWrite, k, bytes.Clone(block4k))); err != nil {
					w.Errorf("write: %v", err)
				}
			})
			w.Check(func() {
				b.wantText("vol", false, onto("ufs1"))
				b.wantOpen("plain", 0)
				b.wantOpen("ufs0", 0)
				if n := p.disks["ufs1"].Count(block.OpWrite); n != 1 || p.disks["plain"].Count(block.OpWrite) != 0 {
					w.Errorf("%d writes came to the disk of the new table, want 1", n)
				}
			})
		},
	})
}
