//go:build invariants || race

package dm_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// Races 1 to 17 of dm-fscrypt.md, section 15, each in every interleaving of the points
// that it names: 1 and 2 here, 3 in racesdm03_test.go, 4 and 5 in racesdmchild_test.go
// and racesdmquery_test.go, 6 and 7 in racesdmevict_test.go, 8 and 9 in
// racesdmslots_test.go, 10 and 11 in racesdmplaces_test.go, 12 to 15 in
// racesdmio_test.go, 16 in racesdmsuspend_test.go, 17 in racesdmswap_test.go. What races
// of blkcrypto.md (racesblk*_test.go) have shown already is cited there.

// A step is a call of a control actor.
type step struct {
	name string
	call func() error
}

// control makes an actor that takes steps one by one, so that others may come between.
func (b *blkWorld) control(steps ...step) {
	b.w.Go("control", func() {
		for i, s := range steps {
			if i > 0 {
				b.w.At("before " + s.name)
			}
			if err := s.call(); err != nil {
				b.w.Errorf("%s: %v", s.name, err)
			}
		}
	})
}

// cycle is suspend, load, resume.
func (b *blkWorld) cycle(name, table string) []step {
	m := b.Device(name)
	return []step{
		{"suspend", func() error { return m.Suspend(b.w.Ctx, dm.SuspendOptions{}) }},
		{"load", func() error { return m.Load(b.w.Ctx, b.Table(table)) }},
		{"resume", func() error { return m.Resume(b.w.Ctx) }},
	}
}

// Race 1, the seed mails': query caps, suspend, load a poorer table, submit, resume. The
// request was made for what the query said, and is served with the right bytes whatever
// is there by then (invariants 1, 36, 37). With reads as with writes, and whether or not
// the fallback knew the key before. (TestRaceBlk10... has the media of two disks.)
func TestDMRace01SeedMail(t *testing.T) {
	for _, op := range []block.Op{block.OpRead, block.OpWrite} {
		for _, warm := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, fallback warm: %v", op, warm), func(t *testing.T) {
				interleave.Run(t, interleave.Race{
					Points:   []string{"block: opened", "dm: admitted", "dm: routed", "dm: swapped"},
					Outcomes: []string{"engine", "software"},
					World: func(w *interleave.World) {
						b := newBlkWorld(w)
						medium := dmtest.NewRAM(blkSize)
						b.Leaf("plain", medium, nil)
						b.Leaf("engine", shared{medium}, b.engine())
						vol := b.Map("vol", onto("engine"))
						k := b.key("k", xts4k, 9)
						if warm {
							b.write(b.Handle("plain"), k, 8192, block4k)
						}
						if op == block.OpRead {
							medium.Set(encrypted(k.bytes, xts4k, blkcrypto.DUN64(0), block4k))
						}
						_, before := k.ServedBy()
						w.Go("user", func() {
							if p := vol.Info().Crypto; !p.Supports(xts4k) {
								return // it was too late for the race
							}
							w.At("asked")
							data := make([]byte, len(block4k))
							if op == block.OpWrite {
								copy(data, block4k)
							}
							if err := vol.Do(w.Ctx, request(op, k, 0, data)); err != nil {
								w.Errorf("%v: %v (invariant 36)", op, err)
							}
							if !bytes.Equal(data, block4k) {
								w.Errorf("%v: wrong data (invariant 37)", op)
							}
							b.wantMedium(medium, k, 0, block4k)
							if _, software := k.ServedBy(); software > before {
								w.Outcome("software")
							} else {
								w.Outcome("engine")
							}
						})
						b.control(b.cycle("vol", onto("plain"))...)
						w.Check(func() {
							if st := b.Device("vol").State(); st.Suspended || st.Waiting != 0 {
								w.Errorf("in the end: %+v", st)
							}
						})
					},
				})
			})
		}
	}
}

// Race 1 with a wrapped key, which software cannot serve. Whoever has started it is
// served, and the poorer table is refused at the resume, or loses the key by force: then
// the request fails with the one error that says so (invariant 38).
func TestDMRace01SeedMailWithAWrappedKey(t *testing.T) {
	for _, revoke := range []bool{false, true} {
		outcomes := map[bool][]string{
			false: {"start refused", "resume refused", "served"},
			true:  {"start refused", "served", "revoked"},
		}[revoke]
		t.Run(fmt.Sprint("revoke: ", revoke), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"block: opened", "dm: admitted", "dm: routed", "dm: swapping", "dm: swapped"},
				Outcomes: outcomes,
				World: func(w *interleave.World) {
					p := newRacePhone(w, "ufs0", "plain")
					vol := p.Map("vol", onto("ufs0"))
					k := p.raceKey(w)
					m := p.Device("vol")
					w.Go("user", func() {
						if _, err := vol.StartKey(k, "the test"); err != nil {
							w.Outcome("start refused")
							if !errors.Is(err, block.ErrNoCrypto) {
								w.Errorf("start: %v", err)
							}
							return
						}
						w.At("started")
						err := vol.Do(w.Ctx, withKey(block.OpWrite, k, bytes.Clone(block4k)))
						switch {
						case err == nil:
							w.Outcome("served")
							if bytes.Contains(p.disks["ufs0"].Bytes(), block4k[:64]) || p.disks["plain"].Count(block.OpWrite) != 0 {
								w.Error("the write came where it should not (invariant 4)")
							}
						case revoke && errors.Is(err, blkcrypto.ErrKeyEvicted):
							w.Outcome("revoked")
						default:
							w.Errorf("write with a key that was started: %v (invariant 38)", err)
						}
					})
					w.Go("control", func() {
						if revoke {
							if err := p.tryReload(w, "vol", "plain", dm.SuspendOptions{Revoke: true}); err != nil {
								w.Errorf("reload by force: %v", err)
							}
							return
						}
						if err := m.Suspend(w.Ctx, dm.SuspendOptions{}); err != nil {
							w.Errorf("suspend: %v", err)
						}
						if err := m.Load(w.Ctx, p.Table(onto("plain"))); err != nil {
							w.Errorf("load: %v", err)
						}
						w.At("loaded")
						err := m.Resume(w.Ctx)
						if err == nil {
							return
						}
						w.Outcome("resume refused")
						if st := m.State(); !errors.Is(err, dm.ErrStrands) || !st.Suspended || !st.Inactive {
							w.Errorf("resume: %v; %+v", err, st)
						}
						if err := m.Clear(w.Ctx); err != nil {
							w.Errorf("clear: %v", err)
						}
						if err := m.Resume(w.Ctx); err != nil {
							w.Errorf("resume with the old table: %v", err)
						}
					})
					w.Check(func() {
						if live := m.TableText(false, dm.StatusTable); !k.Dead() && p.serves("vol", k) != (live == onto("ufs0")+"\n") {
							w.Errorf("%q advertises the key: %v", live, p.serves("vol", k))
						}
					})
				},
			})
		})
	}
}

// Race 2: a swap between the decision that a device beneath serves a request, or a key,
// and what follows from it. With a raw key the decision of a level above may be out of
// date when the request comes to the one below: whichever finds no engine falls back
// (invariants 36 and 41).
func TestDMRace02DecidedAboveSwappedBelow(t *testing.T) {
	for from, to := range map[string]string{"engine": "plain", "plain": "engine"} {
		t.Run(from+" to "+to, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"dm: routed", "block: opened", "dm: suspended", "dm: swapped"},
				Outcomes: []string{"engine", "software"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					medium := dmtest.NewRAM(blkSize)
					b.Leaf("plain", medium, nil)
					b.Leaf("engine", shared{medium}, b.engine())
					b.Map("mid", onto(from))
					top := b.Map("top", onto("mid"))
					k := b.key("k", xts4k, 9)
					w.Go("write", func() {
						if stop, err := top.StartKey(k.Key, "the test"); err != nil {
							w.Errorf("start of a raw key: %v", err)
						} else {
							defer stop()
						}
						b.write(top, k, 0, block4k)
						b.wantMedium(medium, k, 0, block4k)
						if engine, software := k.ServedBy(); engine+software != 1 {
							w.Errorf("transformed %d times by engines, %d times by software", engine, software)
						} else if engine == 1 {
							w.Outcome("engine")
						} else {
							w.Outcome("software")
						}
					})
					w.Go("reload", func() { b.reload("mid", onto(to)) })
				},
			})
		})
	}
}

// Race 2 with a wrapped key that a target starts when its table is built. The decision
// and its note are one step to the swap below (TestRaceBlk08StartUsingAWrappedKey... has
// that of a user), so either the table is refused or the reload is; a table that was
// built serves, though it is not live yet, and stands in the way until it is given up.
func TestDMRace02TargetStartsAgainstSwapBelow(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: staged", "dm: swapping", "dm: swapped"},
		Outcomes: []string{"table refused", "reload refused"},
		World: func(w *interleave.World) {
			p := newRacePhone(w, "ufs0", "plain")
			p.Map("mid", onto("ufs0"))
			top := p.Map("top", onto("plain"))
			long, err := p.hardware.Generate()
			if err != nil {
				w.Fatal(err)
			}
			defer long.Wipe()
			eph, err := p.hardware.Prepare(long.Bytes())
			if err != nil {
				w.Fatal(err)
			}
			p.AddKey("w", bytes.Clone(eph.Bytes()))
			eph.Wipe()
			w.Go("load", func() {
				table, err := p.Parse("0 128 inlinecrypt aes-xts-plain64 :49:logon:w 0 mid 0 3 sector_size:4096 iv_large_sectors keytype:hw-wrapped")
				if err != nil {
					if !errors.Is(err, block.ErrNoCrypto) {
						w.Errorf("parse: %v", err)
					}
					w.Outcome("table refused")
					return
				}
				w.At("built")
				if err := p.Device("top").Reload(w.Ctx, table, dm.SuspendOptions{}); err != nil {
					w.Errorf("reload of the upper device: %v", err)
				}
				w.At("live")
				dmtest.Write(w, top, 0, block4k)
				if !bytes.Equal(dmtest.Read(w, top, 0, 4096), block4k) || bytes.Contains(p.disks["ufs0"].Bytes(), block4k[:64]) {
					w.Error("wrong data, or plaintext on the medium (invariant 4)")
				}
				if err := p.tryReload(w, "top", "plain", dm.SuspendOptions{}); err != nil {
					w.Errorf("the target's end: %v", err)
				}
			})
			w.Go("reload", func() {
				switch err := p.tryReload(w, "mid", "plain", dm.SuspendOptions{}); {
				case errors.Is(err, dm.ErrStrands):
					w.Outcome("reload refused")
				case err != nil:
					w.Errorf("reload: %v", err)
				}
			})
			w.Check(func() {
				if err := p.tryReload(w, "mid", "plain", dm.SuspendOptions{}); err != nil {
					w.Errorf("nobody uses the key any more: %v (invariant 39)", err)
				}
			})
		},
	})
}
