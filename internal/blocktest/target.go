package blocktest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"keyway/block"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// targetSize is the size of the leaves that a table of Target finds, in bytes:
// 2048 sectors.
const targetSize = 1 << 20

// A TargetCase is one table, for Target.
type TargetCase struct {
	// Table maps the leaves "a" and "b", of 2048 sectors each, with the key
	// ":64:logon:k" ready.
	Table string

	// Leaf is the block size of the leaves, 512 if 0.
	Leaf int

	// Splits means that a request of 4 KiB may touch several places, and so
	// allocate.
	Splits bool
}

// Target tests the device of a table: as a Device, over leaves with and
// without an engine, and for what it loses when the power fails.
func Target(t *testing.T, c TargetCase) {
	leaf := max(c.Leaf, 512)
	engines := []int{0}
	if strings.Contains(c.Table, ":logon:") {
		engines = append(engines, 1)
	}
	for _, slots := range engines {
		t.Run(fmt.Sprintf("Slots=%d", slots), func(t *testing.T) {
			open := func(t *testing.T) block.Device {
				w := targetWorld(t)
				for _, name := range []string{"a", "b"} {
					d := dmtest.NewRAM(targetSize)
					d.SetInfo(func(i *block.Info) { i.LogicalBlock, i.PhysicalBlock = leaf, max(leaf, i.PhysicalBlock) })
					var e *keyslot.Manager
					if slots > 0 {
						e = keyslot.New(soft.New(name+"'s engine", slots))
					}
					w.Leaf(name, d, e)
				}
				return w.Map("vol", c.Table)
			}
			Device(t, open, Options{FewBlocks: true, NoAllocs: !c.Splits})
		})
	}
	t.Run("Durability", func(t *testing.T) {
		// Both leaves are halves of one device, so that one cut of the power
		// meets both.
		Durability(t, 2*targetSize, leaf, func(t *testing.T, dev block.Device) block.Device {
			w := targetWorld(t)
			half := dev.Info().Size / 2
			w.Leaf("a", window{dev, 0, half}, nil)
			w.Leaf("b", window{dev, half, half}, nil)
			return w.Map("vol", c.Table)
		})
	})
}

func targetWorld(t *testing.T) *dmtest.World {
	w := dmtest.New(t)
	w.AddKey("k", pattern(1, 64))
	return w
}

// A window is a part of a device.
type window struct {
	dev    block.Device
	off, n int64
}

func (w window) Do(ctx context.Context, r block.Request) error {
	if err := block.Check(r, w.Info()); err != nil {
		return err
	}
	r.Off += w.off
	return w.dev.Do(ctx, r)
}

func (w window) Info() block.Info {
	i := w.dev.Info()
	i.Size = w.n
	return i
}

func (w window) Close() error { return nil }
