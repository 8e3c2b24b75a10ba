package target

import (
	"context"
	"iter"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{Name: "zero", Usage: "(no arguments)", New: newZero})
}

// zero reads as zeroes and forgets what is written.
type zero struct{ nothingBelow }

func newZero(_ context.Context, _ *dm.Builder, a *dm.Args) (dm.Target, error) {
	return zero{}, a.End()
}

func (z zero) Do(_ context.Context, r block.Request) error {
	if _, err := z.Map(&r); err != nil {
		return err
	}
	if r.Op == block.OpRead {
		r.Data.Clear()
	}
	return nil
}

// Map tells that requests end here.
func (zero) Map(r *block.Request) (block.Device, error) {
	if r.Crypt.Active() {
		return nil, block.ErrNoCrypto
	}
	return nil, nil
}

// Explain says what becomes of data.
func (zero) Explain(int64) string { return "reads as zeroes and forgets what is written" }

func (zero) Info() block.Info {
	return block.Info{
		LogicalBlock: 512, PhysicalBlock: 512, FUA: block.Native, Discard: block.Native, Zeroes: block.Native, NeverBlocks: true,
	}
}

func (zero) Extents(_ context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return func(yield func(block.Extent, error) bool) {
		if n > 0 {
			yield(block.Extent{Off: off, Len: n, Hole: true, Zero: true}, nil)
		}
	}
}

// nothingBelow is what targets without devices have in common.
type nothingBelow struct{}

func (nothingBelow) Under() []block.Span         { return nil }
func (nothingBelow) Status(dm.StatusKind) string { return "" }
func (nothingBelow) Close() error                { return nil }
