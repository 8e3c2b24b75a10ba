//go:build invariants || race

package dm_test

import (
	"context"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/keyslot"
)

// A told world has devices beside those of dmtest, which tell a test of their events.
type told struct {
	*dmtest.World
	devs map[string]*dm.Mapped
}

func (e *told) Open(ctx context.Context, name string, readOnly bool) (block.Device, error) {
	if m := e.devs[name]; m != nil {
		return m.Open("a table")
	}
	return e.World.Open(ctx, name, readOnly)
}

func (e *told) mapped(w *interleave.World, name, table string, tell func(dm.Event)) *dm.Mapped {
	m := dm.New(name, dm.Options{Event: func(_ *dm.Mapped, ev dm.Event) { tell(ev) }})
	e.devs[name] = m
	e.load(w, m, table)
	return m
}

func (e *told) load(w *interleave.World, m *dm.Mapped, table string) {
	t, err := dm.Parse(w.Ctx, table, e, dm.ParseOptions{})
	if err == nil {
		err = m.Reload(w.Ctx, t, dm.SuspendOptions{})
	}
	if err != nil {
		w.Fatal(err)
	}
}

// Race 5, a query in the middle of a commit: a device is beneath both rows of another,
// each by a device of its own, and what it serves becomes something disjoint. Events
// are told within the commit, between the steps that make it true at one device and at
// the next: a query there, of either kind, gets what was true before or what is true
// after, and never what the two rows have in common meanwhile (invariant 42).
func TestDMRace05QueryWithinACommit(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Outcomes: []string{"old", "new"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			medium := dmtest.NewRAM(blkSize)
			b.pickyLeaf("a", medium, 4096)
			b.pickyLeaf("b", medium, 512)
			e := &told{b.World, map[string]*dm.Mapped{}}
			old, next := b.Device("a").Engine().Profile(), b.Device("b").Engine().Profile()
			var top *dm.Mapped
			var keyslots *keyslot.Manager
			look := func(ev dm.Event) {
				if keyslots == nil || ev.Kind != dm.EventProfile {
					return
				}
				for what, p := range map[string]blkcrypto.Profile{"info": top.Info().Crypto, "keyslots": keyslots.Profile()} {
					switch p {
					case old:
						w.Outcome("old")
					case next:
						w.Outcome("new")
					default:
						w.Errorf("after the event of %s, %s says %v, which was never true (invariant 42)", ev.Device, what, p)
					}
				}
			}
			low := e.mapped(w, "low", onto("a"), look)
			e.mapped(w, "one", onto("low"), look)
			e.mapped(w, "two", onto("low"), look)
			top = e.mapped(w, "top", "0 64 linear one 0\n64 64 linear two 64", look)
			keyslots = top.Keyslots() // which asks for the name, and here others may not
			w.Go("reload", func() { e.load(w, low, onto("b")) })
			w.Check(func() {
				if p := top.Info().Crypto; p != next {
					w.Errorf("in the end: %v", p)
				}
			})
		},
	})
}
