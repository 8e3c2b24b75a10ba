package target

import (
	"context"
	"iter"

	"keyway/block"
)

// inPlaces yields the extents of a range that lies in many places, and joins
// those that adjoin. place says where a byte of it is, and how many follow.
func inPlaces(ctx context.Context, off, n int64, place func(off int64) (dev block.Device, at, n int64)) iter.Seq2[block.Extent, error] {
	return func(yield func(block.Extent, error) bool) {
		var run block.Extent
		for end := off + n; off < end; {
			dev, at, n := place(off)
			n = min(n, end-off)
			for e, err := range shifted(ctx, dev, at, n, off-at) {
				switch {
				case err != nil:
					yield(e, err)
					return
				case run.Len > 0 && run.Hole == e.Hole && run.Zero == e.Zero:
					run.Len += e.Len
				case run.Len > 0 && !yield(run, nil):
					return
				default:
					run = e
				}
			}
			off += n
		}
		if run.Len > 0 {
			yield(run, nil)
		}
	}
}
