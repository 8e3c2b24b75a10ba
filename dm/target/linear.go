package target

import (
	"context"
	"fmt"
	"iter"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "linear", Features: dm.PassesCrypto,
		Usage: "<device> <start sector>", New: newLinear,
	})
}

// linear maps its row onto a device, start bytes in.
type linear struct {
	block.Device
	name          string
	start, length int64 // bytes
}

func newLinear(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	l := &linear{name: a.String("device"), start: a.Sectors("start"), length: b.Len()}
	if err := a.End(); err != nil {
		return nil, err
	}
	var err error
	l.Device, err = b.OpenSpan(l.name, l.start, l.length)
	return l, err
}

func (l *linear) Do(ctx context.Context, r block.Request) error {
	dev, _ := l.Map(&r)
	return dev.Do(ctx, r)
}

// Map moves r to its place on the device.
func (l *linear) Map(r *block.Request) (block.Device, error) {
	r.Off += l.start
	return l.Device, nil
}

func (l *linear) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return shifted(ctx, l.Device, off+l.start, n, -l.start)
}

// shifted yields the extents of dev with by added to their offsets.
func shifted(ctx context.Context, dev block.Device, off, n, by int64) iter.Seq2[block.Extent, error] {
	return func(yield func(block.Extent, error) bool) {
		for e, err := range block.Extents(ctx, dev, off, n) {
			e.Off += by
			if !yield(e, err) {
				return
			}
		}
	}
}

func (l *linear) Under() []block.Span {
	return []block.Span{{Dev: l.Device, Off: l.start, Len: l.length}}
}

func (l *linear) Status(k dm.StatusKind) string {
	if k == dm.StatusInfo {
		return ""
	}
	return fmt.Sprintf("%s %d", dm.QuoteWord(l.name), l.start>>9)
}
