package target

import (
	"context"
	"fmt"
	"sync"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{Name: "snapshot-origin", Usage: "<origin>", New: newSnapshotOrigin})
}

// snapshotOrigin passes everything to its device. Before a change it lets every
// snapshot of that device keep what the change overwrites.
//
// It takes no contexts: what the snapshots copy is to be what the device holds
// for those who read without, so the table encrypts above.
type snapshotOrigin struct {
	linear
	shared *origin
}

func newSnapshotOrigin(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	// The kernel passes sectors of the table on, not of the row.
	o := &snapshotOrigin{linear: linear{name: a.String("origin"), start: b.Start(), length: b.Len()}}
	if err := a.End(); err != nil {
		return nil, err
	}
	var err error
	if o.Device, err = b.OpenSpan(o.name, o.start, o.length); err != nil {
		return nil, err
	}
	o.shared = originOf(o.Device)
	return o, nil
}

// Do performs r, a change once all snapshots are ready for it.
//
// Hot: no allocation unless a snapshot has to keep something.
func (o *snapshotOrigin) Do(ctx context.Context, r block.Request) error {
	if err := refuseMark(&r, o.Device); err != nil {
		return err
	}
	switch {
	case r.Op == block.OpDiscard:
		return block.ErrNotSupported
	case !r.Op.Changes():
		return o.linear.Do(ctx, r)
	}
	off, end := o.start+r.Off, o.start+r.Off+r.Len
	f, cows := o.shared.begin(off, end)
	defer o.shared.end(f)
	if err := keepAll(ctx, cows, off, end, r.NoWait()); err != nil {
		return err
	}
	return o.linear.Do(ctx, r)
}

// keepAll returns when no snapshot needs these bytes of the origin any more.
func keepAll(ctx context.Context, cows []*cow, off, end int64, nowait bool) error {
	var slow []*cow
	for _, c := range cows {
		if c.kept(off, end) {
			continue
		}
		if nowait {
			return block.ErrWouldBlock
		}
		slow = append(slow, c)
	}
	if len(slow) == 0 {
		return nil
	}
	errs := make([]error, len(slow))
	var wg sync.WaitGroup
	last := len(slow) - 1
	for i, c := range slow[:last] {
		wg.Go(func() { errs[i] = c.keep(ctx, off, end) })
	}
	errs[last] = slow[last].keep(ctx, off, end)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// refuseMark refuses data that a layer above has encrypted for itself, where
// default-key lies beneath: copies could not tell it from other data.
func refuseMark(r *block.Request, devices ...block.Device) error {
	if r.Flags&block.SkipDefaultKey == 0 || !r.Op.HasData() {
		return nil
	}
	for _, d := range devices {
		if dm.MarksMatter(d) {
			return fmt.Errorf("%w: a snapshot over default-key cannot copy data that is not the default key's", block.ErrNoCrypto)
		}
	}
	return nil
}

// Explain says who has to be ready for a change.
func (o *snapshotOrigin) Explain(int64) string {
	switch n := o.shared.snapshots(); n {
	case 0:
		return "there is no snapshot"
	case 1:
		return "1 snapshot keeps what a write changes"
	default:
		return fmt.Sprintf("%d snapshots keep what a write changes", n)
	}
}

// Info promises nothing about waiting, since a snapshot may come at any time. A
// discard would cost a copy of all that it discards; the kernel knows none here.
func (o *snapshotOrigin) Info() block.Info {
	i := o.Device.Info()
	i.Discard, i.NeverBlocks = block.None, false
	return i
}

func (o *snapshotOrigin) Status(k dm.StatusKind) string {
	if k == dm.StatusInfo {
		return ""
	}
	return dm.QuoteWord(o.name)
}

// Close leaves the device to the builder that opened it.
func (o *snapshotOrigin) Close() error {
	o.shared.leave()
	return nil
}
