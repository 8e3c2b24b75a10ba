//go:build invariants || race

package dm_test

import (
	"bytes"
	"context"

	"keyway/blkcrypto"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/emul"
)

// newRacePhone is newPhone for one interleaving: small, and only the disks that the
// race needs. "foreign" has another hardware than the others.
func newRacePhone(w *interleave.World, disks ...string) *phone {
	hardware := func(fill byte) *emul.Hardware {
		h, err := emul.NewHardware(bytes.Repeat([]byte{fill}, emul.FuseSize))
		if err != nil {
			w.Fatal(err)
		}
		w.Cleanup(h.Close)
		return h
	}
	p := &phone{dmtest.NewWithFallback(w, 2), hardware(0), map[string]*dmtest.RAM{}}
	for _, name := range disks {
		text, h := "ufs?slots=2", p.hardware
		switch name {
		case "raw":
			text = "ufs?slots=2&keys=raw"
		case "foreign":
			h = hardware(7)
		}
		var m *keyslot.Manager
		if name != "plain" {
			s, err := emul.ParseSpec(text)
			if err != nil {
				w.Fatal(err)
			}
			s.Options.Hardware = h
			m = keyslot.New(emul.New(name, s.Options))
		}
		p.disks[name] = dmtest.NewRAM(blkSize)
		p.Leaf(name, p.disks[name], m)
	}
	return p
}

// raceKey is a wrapped key that does not outlive its interleaving.
func (p *phone) raceKey(w *interleave.World) *blkcrypto.Key {
	k := p.wrapped(w.T, 4096)
	w.Cleanup(func() { _, _ = k.Evict(context.Background()) })
	return k
}

func onto(leaf string) string { return "0 128 linear " + leaf + " 0" }

// tryReload replaces the live table of a device.
func (p *phone) tryReload(w *interleave.World, name, leaf string, o dm.SuspendOptions) error {
	table, err := p.Parse(onto(leaf))
	if err != nil {
		return err
	}
	return p.Device(name).Reload(w.Ctx, table, o)
}

// serves reports whether a device advertises that it serves k.
func (p *phone) serves(name string, k *blkcrypto.Key) bool {
	profile := p.Device(name).Keyslots().Profile()
	return profile.Supports(k.Config())
}
