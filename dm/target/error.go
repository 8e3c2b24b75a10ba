package target

import (
	"context"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{Name: "error", Usage: "[<device> <start sector>]", New: newError})
}

// failing fails every request with data. A flush does not reach it: a table
// sends flushes to devices, and no write to this row has ever completed.
type failing struct{ nothingBelow }

func newError(_ context.Context, _ *dm.Builder, a *dm.Args) (dm.Target, error) {
	// The kernel takes a device and ignores it, so that a linear row can be
	// made to fail by changing one word.
	if a.Rest() > 0 {
		a.String("device")
		a.Sectors("start")
	}
	return failing{}, a.End()
}

func (failing) Do(context.Context, block.Request) error { return block.ErrIO }

// Map tells that requests end here.
func (failing) Map(*block.Request) (block.Device, error) { return nil, block.ErrIO }

func (failing) Info() block.Info {
	return block.Info{
		LogicalBlock: 512, PhysicalBlock: 512, FUA: block.Native, Discard: block.Native, Zeroes: block.Native, NeverBlocks: true,
	}
}
