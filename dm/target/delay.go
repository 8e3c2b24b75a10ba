package target

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "delay", Features: dm.PassesCrypto | dm.TakesFlush,
		Usage: "<device> <start sector> <ms> [<write device> <start sector> <ms> [<flush device> <start sector> <ms>]]", New: newDelay,
	})
}

// delay keeps each request back for a while, by its kind, before the device
// of that kind gets it. Requests that change the medium without data count as
// writes.
type delay struct {
	kinds   [3]kind // reads, writes, flushes
	legs    []*leg  // those that the table names
	devices []block.Device

	mu    sync.Mutex
	hurry chan struct{} // closed while the device is to be quiet; guarded by mu
}

// A kind of request, where it goes, and how many are kept back.
type kind struct {
	*leg
	kept atomic.Int64
}

const (
	reads = iota
	writes
	flushes
)

type leg struct {
	linear
	wait time.Duration
}

func newDelay(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	d := &delay{hurry: make(chan struct{})}
	for i, what := range []string{"", "write ", "flush "} {
		if i > 0 && a.Rest() == 0 {
			break
		}
		l := &leg{linear: linear{name: a.String(what + "device"), start: a.Sectors(what + "start"), length: b.Len()}}
		l.wait = time.Duration(upTo32Bits(a, what+"delay, in ms", 0)) * time.Millisecond
		d.legs = append(d.legs, l)
	}
	if err := a.End(); err != nil {
		return nil, err
	}
	for _, l := range d.legs {
		var err error
		if l.Device, err = b.OpenSpan(l.name, l.start, l.length); err != nil {
			return nil, err
		}
	}
	for i := range d.kinds {
		d.kinds[i].leg = d.legs[min(i, len(d.legs)-1)]
	}
	d.devices = dm.Distinct(d.Under())
	return d, nil
}

// Do waits, and then performs r.
//
// Hot: no allocation where the delay is 0.
func (d *delay) Do(ctx context.Context, r block.Request) error {
	k := d.kindOf(r.Op)
	if k.wait > 0 {
		if err := d.keep(ctx, k, r.NoWait()); err != nil {
			return err
		}
	}
	if r.Op == block.OpFlush {
		return d.flushAll(ctx, r)
	}
	return k.Do(ctx, r)
}

func (d *delay) kindOf(op block.Op) *kind {
	switch op {
	case block.OpRead:
		return &d.kinds[reads]
	case block.OpFlush:
		return &d.kinds[flushes]
	}
	return &d.kinds[writes]
}

// Map tells where a request goes that is no flush, when its time has come.
func (d *delay) Map(r *block.Request) (block.Device, error) { return d.kindOf(r.Op).Map(r) }

// Explain says how long requests wait.
func (d *delay) Explain(int64) string {
	return fmt.Sprintf("reads wait %v, writes %v, flushes %v", d.kinds[reads].wait, d.kinds[writes].wait, d.kinds[flushes].wait)
}

// keep returns when the time of k is over, or the device is to be quiet.
func (d *delay) keep(ctx context.Context, k *kind, nowait bool) error {
	d.mu.Lock()
	hurry := d.hurry
	d.mu.Unlock()
	select {
	case <-hurry:
		return nil
	default:
	}
	if nowait {
		return block.ErrWouldBlock
	}
	k.kept.Add(1)
	defer k.kept.Add(-1)
	t := time.NewTimer(k.wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-hurry:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// flushAll reaches every device, and not only that of flushes as the kernel's
// target does: what the writes went to would stay volatile (dm-fscrypt.md,
// invariant 12).
func (d *delay) flushAll(ctx context.Context, r block.Request) error {
	if len(d.devices) == 1 {
		return d.devices[0].Do(ctx, r)
	}
	parts := make([]block.Part, 0, len(d.devices))
	for _, dev := range d.devices {
		parts = append(parts, block.Part{Dev: dev, Req: r})
	}
	return block.Parallel(ctx, parts)
}

// Pause lets all go at once, and delays nothing until Unpause.
func (d *delay) Pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.hurry:
	default:
		close(d.hurry)
	}
}

func (d *delay) Unpause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.hurry:
		d.hurry = make(chan struct{})
	default:
	}
}

func (d *delay) Info() block.Info {
	sum := d.legs[0].Device.Info()
	for _, l := range d.legs[1:] {
		sum = together(sum, l.Device.Info())
	}
	for _, l := range d.legs {
		sum.NeverBlocks = sum.NeverBlocks && l.wait == 0
	}
	sum.WritesBlock = sum.WritesBlock || d.kinds[writes].wait > 0 && d.kinds[flushes].wait > 0
	return sum
}

// together describes what is on two devices alike.
func together(sum, i block.Info) block.Info {
	sum.LogicalBlock = max(sum.LogicalBlock, i.LogicalBlock)
	sum.PhysicalBlock = max(sum.PhysicalBlock, i.PhysicalBlock)
	sum.MinIO, sum.OptIO = max(sum.MinIO, i.MinIO), max(sum.OptIO, i.OptIO)
	sum.FUA, sum.Discard, sum.Zeroes = min(sum.FUA, i.FUA), min(sum.Discard, i.Discard), min(sum.Zeroes, i.Zeroes)
	sum.VolatileCache = sum.VolatileCache || i.VolatileCache
	sum.ReadOnly = sum.ReadOnly || i.ReadOnly
	sum.NeverBlocks = sum.NeverBlocks && i.NeverBlocks
	sum.WritesBlock = sum.WritesBlock || i.WritesBlock
	sum.Crypto = sum.Crypto.Intersect(i.Crypto)
	return sum
}

// Extents are those of where reads go.
func (d *delay) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return d.kinds[reads].Extents(ctx, off, n)
}

func (d *delay) Under() []block.Span {
	var spans []block.Span
	for _, l := range d.legs {
		spans = append(spans, l.Under()...)
	}
	return spans
}

// Status is how many reads, writes and flushes are kept back.
func (d *delay) Status(k dm.StatusKind) string {
	if k == dm.StatusInfo {
		return fmt.Sprintf("%d %d %d", d.kinds[reads].kept.Load(), d.kinds[writes].kept.Load(), d.kinds[flushes].kept.Load())
	}
	var words []string
	for _, l := range d.legs {
		words = append(words, l.Status(k), fmt.Sprint(l.wait.Milliseconds()))
	}
	return strings.Join(words, " ")
}

// Close leaves the devices to the builder that opened them.
func (d *delay) Close() error { return nil }
