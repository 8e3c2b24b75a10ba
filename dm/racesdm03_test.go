//go:build invariants || race

package dm_test

import (
	"bytes"
	"errors"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// A picky engine takes data units of some sizes.
type picky struct {
	*watched
	units []int
}

func (e picky) Profile() (p blkcrypto.Profile) {
	for _, unit := range e.units {
		c := xts4k
		c.DataUnitSize = unit
		p.Add(c)
	}
	return p
}

// pickyLeaf makes a leaf device on a shared medium whose engine takes data units of
// some sizes.
func (b *blkWorld) pickyLeaf(name string, medium *dmtest.RAM, units ...int) {
	e := &watched{Engine: soft.New(name, 2), slots: map[int][]byte{}}
	m := keyslot.New(picky{e, units})
	b.engines, b.managers = append(b.engines, e), append(b.managers, m)
	b.Leaf(name, shared{medium}, m)
}

// Race 3, two loaders and a resume (gap U4): table 1 is loaded and table 2 has been
// built when the resume of table 1 makes the device grow; table 2, which is poorer, is
// loaded before, during or after that, and resumed. What is advertised is what the live
// table serves, at each moment; a request that was made for it is served; no table is
// lost or closed twice (invariants 36, 40 and 44).
func TestDMRace03TwoLoadersAndAResume(t *testing.T) {
	for name, second := range map[string]string{"none": "plain", "subset": "subset", "disjoint": "disjoint"} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"dm: admitted", "dm: swapping", "dm: swapped"},
				Outcomes: []string{"table 1", "table 2", "engine", "software"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					medium := dmtest.NewRAM(blkSize)
					b.Leaf("plain", medium, nil)
					b.pickyLeaf("first", medium, 512, 4096)
					b.pickyLeaf("subset", medium, 512)
					b.pickyLeaf("disjoint", medium, 1024)
					vol := b.Map("vol", onto("plain"))
					m := b.Device("vol")
					k := b.key("k", xts4k, 9)
					if err := m.Load(w.Ctx, b.Table(onto("first"))); err != nil {
						w.Fatal(err)
					}
					table2 := b.Table(onto(second))
					w.Go("loader", func() {
						if err := m.Load(w.Ctx, table2); err != nil {
							w.Errorf("load: %v", err)
						}
					})
					w.Go("resume", func() {
						for range 2 {
							if err := m.Resume(w.Ctx); err != nil {
								w.Errorf("resume: %v", err)
							}
						}
					})
					w.Go("user", func() {
						if p := vol.Keyslots().Profile(); !p.Supports(xts4k) {
							w.At("waiting for it to grow")
						}
						b.write(vol, k, 0, block4k)
						b.wantMedium(medium, k, 0, block4k)
						if engine, _ := k.ServedBy(); engine == 1 {
							w.Outcome("engine")
						} else {
							w.Outcome("software")
						}
					})
					w.Check(func() {
						b.wantTrue("vol")
						live, inactive, second := onto("first"), "", onto(second)
						switch m.TableText(false, dm.StatusTable) {
						case second + "\n":
							w.Outcome("table 2")
							live = second
						default: // the loader came last
							w.Outcome("table 1")
							inactive = second
						}
						b.wantText("vol", false, live)
						b.wantText("vol", true, inactive)
						if p := vol.Info().Crypto; p.Supports(xts4k) != (live == onto("first")) {
							w.Errorf("live is %q and advertises %v", live, p)
						}
					})
				},
			})
		})
	}
}

// Race 3 with a wrapped key: a user who has started it, at whatever moment the device
// could serve it, is served until he stops, and the resume of the other table is refused
// (invariants 38 and 44). "disjoint" is an engine of another hardware: same configs, and
// every other byte.
func TestDMRace03TwoLoadersAndAResumeWithAWrappedKey(t *testing.T) {
	for name, second := range map[string]string{"none": "plain", "subset": "raw", "disjoint": "foreign"} {
		outcomes := []string{"start refused", "served", "resume refused", "resumed"}
		if name == "disjoint" {
			outcomes = append(outcomes, "another's hardware")
		}
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"dm: rechecked", "dm: swapping"},
				Outcomes: outcomes,
				World: func(w *interleave.World) {
					p := newRacePhone(w, "plain", "ufs0", second)
					vol := p.Map("vol", onto("plain"))
					m := p.Device("vol")
					k := p.raceKey(w)
					if err := m.Load(w.Ctx, p.Table(onto("ufs0"))); err != nil {
						w.Fatal(err)
					}
					table2 := p.Table(onto(second))
					w.Go("loader", func() {
						if err := m.Load(w.Ctx, table2); err != nil {
							w.Errorf("load: %v", err)
						}
					})
					w.Go("resume", func() {
						for range 2 {
							switch err := m.Resume(w.Ctx); {
							case err == nil:
								w.Outcome("resumed")
							case errors.Is(err, dm.ErrStrands):
								w.Outcome("resume refused")
							default:
								w.Errorf("resume: %v", err)
							}
						}
					})
					w.Go("user", func() {
						_, err := vol.StartKey(k, "the test")
						live := m.TableText(false, dm.StatusTable)
						if err != nil {
							w.Outcome("start refused")
							if !errors.Is(err, block.ErrNoCrypto) || live == onto("ufs0")+"\n" {
								w.Errorf("start over %q: %v", live, err)
							}
							return
						}
						if live != onto("ufs0")+"\n" {
							// A key does not say whose it is; the engine finds out.
							err := vol.Do(w.Ctx, withKey(block.OpWrite, k, bytes.Clone(block4k)))
							if name != "disjoint" || err == nil || p.disks[second].Count(block.OpWrite) != 0 {
								w.Errorf("started over %q; write: %v", live, err)
							}
							w.Outcome("another's hardware")
							return
						}
						for range 2 {
							if err := vol.Do(w.Ctx, withKey(block.OpWrite, k, bytes.Clone(block4k))); err != nil {
								w.Errorf("write with a key that was started: %v (invariant 38)", err)
							}
							w.At("written")
						}
						if n := p.disks["ufs0"].Count(block.OpWrite); n != 2 {
							w.Errorf("%d writes came to the disk whose engine knows the key, want 2", n)
						}
						w.Outcome("served")
					})
					w.Check(func() {
						live := m.TableText(false, dm.StatusTable)
						profile, wrapper := m.Keyslots().Profile(), m.Keyslots().Wrapper()
						if ours := wrapper == keyslot.Wrapper(p.hardware); ours != (live == onto("ufs0")+"\n") || profile != dm.ServedNow(m) {
							w.Errorf("%q advertises the hardware of the key: %v, %v (invariant 44)", live, ours, profile)
						}
					})
				},
			})
		})
	}
}
