//go:build invariants || race

package dm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/internal/secret"
	"keyway/keyslot"
)

// Races 30, 31, 33 and 34 of dm-fscrypt.md, section 15: what devices stand on.

// Race 30: devices are reloaded at the same time, each over the next one, so that all
// together would stand on themselves. At least one is refused, before anything of it is
// live, and says why; a graph never has a cycle, through no table that is live or
// loaded (invariant 35).
func TestDMRace30Cycle(t *testing.T) {
	for name, c := range map[string]struct {
		n      int
		load   bool // in steps
		points []string
	}{
		"two":            {2, false, []string{"dm: staged", "dm: suspended", "dm: swapped", "dm: discarding"}},
		"two, in steps":  {2, true, []string{"dm: suspended", "dm: swapped", "dm: discarding"}},
		"three":          {3, false, []string{"dm: staged", "dm: swapped"}},
		"three in steps": {3, true, []string{"dm: swapped"}},
	} {
		t.Run(name, func(t *testing.T) {
			n, load, points := c.n, c.load, c.points
			interleave.Run(t, interleave.Race{Points: points, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				b.disk("a", nil)
				var tables []*dm.Table
				for i := range n {
					b.Map(fmt.Sprint("d", i), onto("a"))
				}
				for i := range n {
					tables = append(tables, b.Table(onto(fmt.Sprint("d", (i+1)%n))))
				}
				refused := make([]bool, n)
				for i := range n {
					m := b.Device(fmt.Sprint("d", i))
					w.Go(m.Name(), func() {
						var err error
						if load {
							if err = m.Load(w.Ctx, tables[i]); err == nil {
								w.At("loaded")
								err = m.Resume(w.Ctx)
							}
						} else {
							err = m.Reload(w.Ctx, tables[i], dm.SuspendOptions{})
						}
						refused[i] = err != nil
						if err != nil && !strings.Contains(err.Error(), "stand on itself") {
							w.Errorf("reload: %v (invariant 35)", err)
						}
					})
				}
				w.Check(func() {
					count := 0
					for i := range n {
						name, under := fmt.Sprint("d", i), "a"
						if refused[i] {
							count++
						} else {
							under = fmt.Sprint("d", (i+1)%n)
						}
						b.wantText(name, false, onto(under))
						b.wantText(name, true, "")
						if st := b.Device(name).State(); st.Suspended {
							w.Errorf("in the end: %+v", st)
						}
					}
					if count != 1 {
						w.Errorf("%d of %d reloads were refused, want one: the last that was needed (invariant 35)", count, n)
						return // a write would run in a circle
					}
					b.wantOpen("a", count)
					for i := range n { // none hangs
						h := b.Handle(fmt.Sprint("d", i))
						dmtest.Write(w, h, 0, block4k)
						_ = h.Close()
					}
				})
			}})
		})
	}
}

// Race 31: a device and the one beneath it are reloaded by two, in opposite orders, while
// somebody writes through both. Nobody waits for another in a circle, everybody's last
// word is what the device has, and each write is done once (invariants 19 and 23).
func TestDMRace31ParentAndChildInOppositeOrders(t *testing.T) {
	for _, inSteps := range []bool{false, true} {
		points := []string{"dm: suspended"}
		if inSteps {
			points = nil // the steps are enough
		}
		t.Run(fmt.Sprint("in steps: ", inSteps), func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: points, Outcomes: []string{"a", "b"}, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				disks := b.disks("a", "b")
				b.Map("child", onto("a"))
				top := b.Map("parent", "0 64 linear child 0")
				k := b.key("k", xts4k, 9)
				next := map[string]*dm.Table{
					"1 parent": b.Table("0 32 linear child 0\n32 32 linear child 32"), "1 child": b.Table(onto("b")),
					"2 parent": b.Table("0 16 linear child 0\n16 48 linear child 16"), "2 child": b.Table(onto("a")),
				}
				last := map[string]string{}
				for who, order := range map[string][]string{"1": {"parent", "child"}, "2": {"child", "parent"}} {
					w.Go(who, func() {
						for i, name := range order {
							if i > 0 {
								w.At("between")
							}
							m, table := b.Device(name), next[who+" "+name]
							text := strings.TrimSpace(table.Text(dm.StatusTable))
							if !inSteps {
								if err := m.Reload(w.Ctx, table, dm.SuspendOptions{}); err != nil {
									w.Errorf("reload of %s: %v", name, err)
								}
								last[name] = text
								continue
							}
							if err := m.Suspend(w.Ctx, dm.SuspendOptions{NoFlush: true}); err != nil {
								w.Errorf("suspend of %s: %v", name, err)
							}
							w.At("suspended")
							if err := m.Load(w.Ctx, table); err != nil {
								w.Errorf("load of %s: %v", name, err)
							}
							if err := m.Resume(w.Ctx); err != nil {
								w.Errorf("resume of %s: %v", name, err)
							}
						}
					})
				}
				w.Go("write", func() { b.write(top, k, 12*512-2048, block4k) })
				w.Check(func() {
					if !inSteps {
						b.wantText("parent", false, last["parent"])
						b.wantText("child", false, last["child"])
					}
					b.wantTrue("parent", "child")
					want := encrypted(k.bytes, xts4k, blkcrypto.DUN64(1), block4k)
					found := 0
					for name, d := range disks {
						if bytes.Equal(d.Bytes()[4096:8192], want) {
							found++
							w.Outcome(name)
						} else if !bytes.Equal(d.Bytes()[4096:8192], make([]byte, 4096)) {
							w.Errorf("wrong bytes on %s (invariant 1)", name)
						}
					}
					if found != 1 {
						w.Errorf("the write is on %d disks, want one", found)
					}
					for _, name := range []string{"parent", "child"} {
						if st := b.Device(name).State(); st.Suspended || st.Waiting != 0 || st.Inside != 0 {
							w.Errorf("in the end: %+v", st)
						}
					}
				})
			}})
		})
	}
}

// Race 33: a wrapped key is made for a device while the device moves to other hardware.
// Whoever starts it before keeps the device where it is; whoever comes later finds that
// no engine opens it: it fails, and there is never a byte of his on the medium. A
// profile that has wrapped keys always comes with hardware that can make one
// (invariants 38 and 47).
func TestDMRace33PrepareAgainstOtherHardware(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: suspended", "dm: swapping", "dm: swapped", "dm: routed"},
		Outcomes: []string{"served by the old", "served by the new", "of other hardware", "reloaded", "reload refused"},
		World: func(w *interleave.World) {
			p := newRacePhone(w, "ufs0", "foreign")
			vol := p.Map("vol", onto("ufs0"))
			table := p.Table(onto("foreign"))
			w.Go("user", func() {
				h := vol.Keyslots().Wrapper()
				if h == nil {
					w.Error("the device takes wrapped keys and nobody makes them (invariant 47)")
					return
				}
				w.At("asked")
				long, err := h.Generate()
				if err != nil {
					w.Errorf("generate: %v", err)
					return
				}
				defer long.Wipe()
				w.At("generated")
				now := vol.Keyslots().Wrapper()
				prepared, err := now.Prepare(long.Bytes())
				if err != nil {
					w.Outcome("of other hardware")
					if now.ID() == h.ID() || !errors.Is(err, keyslot.ErrBadBlob) {
						w.Errorf("prepare: %v", err)
					}
					return
				}
				w.At("prepared")
				derive(w, now, prepared)
				k, err := blkcrypto.NewKey("u7", blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.HWWrapped, DataUnitSize: 4096, DUNBytes: 8}, prepared)
				if err != nil {
					w.Error(err)
					return
				}
				w.Cleanup(func() { _, _ = k.Evict(context.Background()) })
				if _, err := vol.StartKey(k, "the user"); err != nil {
					w.Errorf("start: %v", err)
				}
				w.At("started")
				err = vol.Do(w.Ctx, withKey(block.OpWrite, k, bytes.Clone(block4k)))
				old, next := p.disks["ufs0"].Count(block.OpWrite), p.disks["foreign"].Count(block.OpWrite)
				switch {
				case err == nil && old == 1 && next == 0 && now.ID() == p.hardware.ID():
					w.Outcome("served by the old")
				case err == nil && old == 0 && next == 1 && now.ID() != p.hardware.ID():
					w.Outcome("served by the new")
				case err != nil && old+next == 0 && errors.Is(err, keyslot.ErrBadBlob):
					w.Outcome("of other hardware")
				default:
					w.Errorf("write with a key of %s: %v; %d writes to the old disk, %d to the new", now.ID(), err, old, next)
				}
			})
			w.Go("reload", func() {
				err := p.Device("vol").Reload(w.Ctx, table, dm.SuspendOptions{})
				switch {
				case err == nil:
					w.Outcome("reloaded")
				case errors.Is(err, dm.ErrStrands):
					w.Outcome("reload refused")
				default:
					w.Errorf("reload: %v", err)
				}
			})
			w.Check(func() {
				for name, d := range p.disks {
					if bytes.Contains(d.Bytes(), block4k[:64]) {
						w.Errorf("plaintext on %s (invariant 4)", name)
					}
				}
			})
		},
	})
}

// derive looks whether hardware derives the secret of what it has prepared.
func derive(w *interleave.World, h keyslot.Wrapper, prepared *secret.Buffer) {
	s, err := h.DeriveSecret(prepared.Bytes())
	if err != nil {
		w.Errorf("derive: %v", err)
		return
	}
	s.Wipe()
}

// Race 34: clear, load and resume want the inactive slot at the same time. One table is
// live in the end and each other is closed, once: a table that has lost stands on
// nothing any more, and what the device advertises is the live one's, at every moment
// (invariants 24, 30, 31 and 44).
func TestDMRace34ClearAgainstLoadAgainstResume(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: rechecked", "dm: swapping", "dm: swapped", "dm: discarding"},
		Outcomes: []string{"live a, inactive ", "live a, inactive c", "live b, inactive ", "live b, inactive c", "live c, inactive "},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disks("a", "c")
			b.disk("b", nil) // no engine
			vol := b.Map("vol", onto("a"))
			m := b.Device("vol")
			if err := m.Load(w.Ctx, b.Table(onto("b"))); err != nil {
				w.Fatal(err)
			}
			table := b.Table(onto("c"))
			w.Go("clear", func() {
				if err := m.Clear(w.Ctx); err != nil {
					w.Errorf("clear: %v", err)
				}
			})
			w.Go("load", func() {
				if err := m.Load(w.Ctx, table); err != nil {
					w.Errorf("load: %v", err)
				}
			})
			w.Go("resume", func() {
				if err := m.Resume(w.Ctx); err != nil {
					w.Errorf("resume: %v", err)
				}
			})
			w.Go("look", func() {
				before := m.TableText(false, dm.StatusTable)
				p := vol.Info().Crypto
				if native, after := p.Supports(xts4k), m.TableText(false, dm.StatusTable); before == after && native != (after != onto("b")+"\n") {
					w.Errorf("over %q: the engine is advertised: %v (invariant 30)", after, native)
				}
			})
			w.Check(func() {
				disk := func(inactive bool) string {
					if f := strings.Fields(m.TableText(inactive, dm.StatusTable)); len(f) > 3 {
						return f[3]
					}
					return ""
				}
				live, inactive := disk(false), disk(true)
				w.Outcome("live " + live + ", inactive " + inactive)
				for _, name := range []string{"a", "b", "c"} {
					want := 0
					if name == live {
						want++
					}
					if name == inactive {
						want++
					}
					b.wantOpen(name, want)
				}
				b.wantTrue("vol")
				dmtest.Write(w, vol, 0, block4k)
			})
		},
	})
}
