package dm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sort"
	"strings"

	"keyway/block"
	"keyway/keyslot"
)

// A Table maps the bytes of a device to rows. It does not change once it is
// built; what lies beneath it may.
type Table struct {
	rows     []row
	readOnly bool

	fallback *keyslot.Manager
	soft     block.Device   // the fallback over this table
	under    []block.Device // the distinct devices beneath
	flushes  []block.Device // whom a flush must reach: of those, and the targets that take it
	synced   []block.Device // what a suspension flushes
	syncers  []Syncer       // and the targets that see to it themselves
	block    int            // logical block in bytes

	handles map[*Handle]bool // the mapped devices that it has open

	entered keySet // of requests of its targets to the devices beneath

	// owner is the mapped device that this table was loaded into; guarded by
	// graph.mu.
	owner *Mapped
}

// A row is one target and what was decided about it when it was built.
type row struct {
	start, end int64 // bytes
	typ        TargetType
	target     Target
	builder    *Builder

	fua, zeroes bool  // the target does these itself
	chunk       int64 // it cuts requests at multiples of this; 0: it does not
	profiles    []profiler
}

func newRow(start, end int64, typ TargetType, target Target, b *Builder) row {
	i := target.Info()
	if d, ok := target.(CryptoDecliner); ok && d.DeclinesCrypto() {
		typ.Features &^= PassesCrypto
	}
	r := row{start: start, end: end, typ: typ, target: target, builder: b, fua: i.FUA != block.None, zeroes: i.Zeroes != block.None}
	if c, ok := target.(Chunked); ok {
		r.chunk = c.Chunk()
	}
	if typ.Features&PassesCrypto != 0 {
		l, _ := target.(*leaf)
		for _, s := range target.Under() {
			r.profiles = append(r.profiles, profilerOf(s.Dev, l))
		}
	}
	return r
}

// complete checks the table as a whole and puts the fallback over it.
func (t *Table) complete(fallback *keyslot.Manager) error {
	if len(t.rows) == 0 {
		return errors.New("has no rows")
	}
	t.block = 512
	for i := range t.rows {
		t.block = max(t.block, t.rows[i].target.Info().LogicalBlock)
	}
	var all, passed, durable []block.Span
	t.handles = map[*Handle]bool{}
	for i := range t.rows {
		r := &t.rows[i]
		for _, d := range r.builder.devices {
			if h, ok := d.(*Handle); ok {
				t.handles[h] = true
			}
		}
		if r.typ.Features&Singleton != 0 && len(t.rows) > 1 {
			return fmt.Errorf("row %d: a %s target must be the only row", i+1, r.typ.Name)
		}
		if (r.start|r.end)%int64(t.block) != 0 {
			return fmt.Errorf("row %d: sectors %d to %d are not whole blocks of %d bytes, which this table has",
				i+1, r.start>>sectorShift, r.end>>sectorShift, t.block)
		}
		all = append(all, r.target.Under()...)
		if s, ok := r.target.(Syncer); ok {
			t.syncers = append(t.syncers, s)
		} else {
			durable = append(durable, r.target.Under()...)
		}
		if r.typ.Features&TakesFlush != 0 {
			t.flushes = append(t.flushes, r.target)
		} else {
			passed = append(passed, r.target.Under()...)
		}
	}
	t.under, t.synced = Distinct(all), Distinct(durable)
	t.flushes = append(t.flushes, Distinct(passed)...)
	t.fallback, t.soft = fallback, keyslot.Fallback(plain{t}, fallback)
	return nil
}

// identity is what two handles on one device have in common.
func identity(dev block.Device) any {
	if h, ok := dev.(*Handle); ok {
		return h.Mapped
	}
	return dev
}

// Size is the length of the table in bytes.
func (t *Table) Size() int64 {
	if len(t.rows) == 0 {
		return 0
	}
	return t.rows[len(t.rows)-1].end
}

// Rows is the number of rows.
func (t *Table) Rows() int { return len(t.rows) }

// ReadOnly reports whether the table refuses writes.
func (t *Table) ReadOnly() bool { return t.readOnly }

// find returns the row that holds the byte at off, which is below Size.
func (t *Table) find(off int64) int {
	if len(t.rows) == 1 {
		return 0
	}
	return sort.Search(len(t.rows), func(i int) bool { return off < t.rows[i].end })
}

// Do performs r on the rows it touches.
//
// Hot: no allocation for a request within one row.
func (t *Table) Do(ctx context.Context, r block.Request) error {
	_, err := t.do(ctx, &r)
	return err
}

// do takes the request by pointer, as everything does between the gate and
// the target: a copy at each of these steps costs more than their work. It
// does not change the request. It says who transforms the data.
func (t *Table) do(ctx context.Context, r *block.Request) (by block.Service, err error) {
	if err := block.CheckAt(r, t.Size(), t.block, t.readOnly); err != nil {
		return by, err
	}
	if r.Len == 0 && r.Op != block.OpFlush {
		return by, nil
	}
	if r.Crypt.Active() {
		return t.crypt(ctx, r)
	}
	return by, t.plain(ctx, r)
}

// plain performs a request without a context.
func (t *Table) plain(ctx context.Context, r *block.Request) error {
	if r.Op == block.OpFlush {
		return t.flush(ctx, *r)
	}
	i := t.find(r.Off)
	if r.Off+r.Len <= t.rows[i].end {
		return t.rows[i].do(ctx, r)
	}
	var parts []block.Part
	for done := int64(0); done < r.Len; i++ {
		n := min(r.Len-done, t.rows[i].end-(r.Off+done))
		parts = append(parts, block.Part{Dev: &t.rows[i], Req: r.Sub(done, n)})
		done += n
	}
	return block.Parallel(ctx, parts)
}

// flush reaches every distinct device beneath the table, whatever targets it
// mixes (dm-fscrypt.md, invariant 12). A table without devices, of error and
// zero targets, has nothing to make durable and succeeds.
func (t *Table) flush(ctx context.Context, r block.Request) error { return flushAll(ctx, t.flushes, r) }

// sync is the flush of a suspension: what has been written becomes durable,
// also where a target would keep a flush back, lose it or fail it on purpose.
func (t *Table) sync(ctx context.Context) error {
	err := flushAll(ctx, t.synced, block.Request{Op: block.OpFlush})
	for _, s := range t.syncers {
		err = errors.Join(err, s.Sync(ctx))
	}
	return err
}

func flushAll(ctx context.Context, devices []block.Device, r block.Request) error {
	if len(devices) == 1 {
		return devices[0].Do(ctx, r)
	}
	parts := make([]block.Part, 0, len(devices))
	for _, d := range devices {
		parts = append(parts, block.Part{Dev: d, Req: r})
	}
	return block.Parallel(ctx, parts)
}

// do performs a request that lies within the row.
func (w *row) do(ctx context.Context, r *block.Request) error {
	switch {
	case r.Op == block.OpFlush:
		return w.flush(ctx, *r)
	case r.Flags&block.FUA != 0 && (!w.fua || r.Op != block.OpWrite):
		return block.EmulateFUA(ctx, w, *r)
	case r.Op == block.OpWriteZeroes && !w.zeroes:
		return block.EmulateZeroes(ctx, w, *r)
	}
	down := *r
	down.Off -= w.start
	return w.target.Do(ctx, down)
}

func (w *row) flush(ctx context.Context, r block.Request) error {
	if w.typ.Features&TakesFlush != 0 {
		return w.target.Do(ctx, r)
	}
	var parts []block.Part
	for _, s := range w.target.Under() {
		parts = append(parts, block.Part{Dev: s.Dev, Req: r})
	}
	return block.Parallel(ctx, parts)
}

// A row is a Device whose offsets are the table's.
func (w *row) Do(ctx context.Context, r block.Request) error { return w.do(ctx, &r) }
func (w *row) Info() block.Info                              { return w.target.Info() }
func (w *row) Close() error                                  { return nil }

// plain is the table as a device for requests without a context: what the
// fallback stands on.
type plain struct{ t *Table }

func (p plain) Do(ctx context.Context, r block.Request) error { return p.t.plain(ctx, &r) }
func (p plain) Info() block.Info                              { return p.t.Info() }
func (p plain) Close() error                                  { return nil }

// Info stacks what the targets say now.
func (t *Table) Info() block.Info {
	sum := block.Info{
		Size: t.Size(), LogicalBlock: t.block, PhysicalBlock: t.block, ReadOnly: t.readOnly,
		FUA: block.Native, Discard: block.Native, Zeroes: block.Native, NeverBlocks: true, WritesBlock: true,
		Crypto: t.ability(nil).profile,
	}
	for i := range t.rows {
		r := &t.rows[i]
		n := r.target.Info()
		sum.PhysicalBlock = max(sum.PhysicalBlock, n.PhysicalBlock)
		sum.MinIO, sum.OptIO = max(sum.MinIO, n.MinIO), max(sum.OptIO, n.OptIO)
		sum.FUA = min(sum.FUA, max(n.FUA, block.Emulated))
		sum.Discard = min(sum.Discard, n.Discard)
		sum.Zeroes = min(sum.Zeroes, max(n.Zeroes, block.Emulated))
		sum.VolatileCache = sum.VolatileCache || n.VolatileCache
		sum.NeverBlocks = sum.NeverBlocks && n.NeverBlocks
		sum.WritesBlock = sum.WritesBlock && n.WritesBlock
	}
	return sum
}

// Extents are those of the rows in turn.
func (t *Table) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return func(yield func(block.Extent, error) bool) {
		for i := t.find(off); n > 0 && i < len(t.rows); i++ {
			r := &t.rows[i]
			part := min(n, r.end-off)
			for e, err := range block.Extents(ctx, r.target, off-r.start, part) {
				e.Off += r.start
				if !yield(e, err) || err != nil {
					return
				}
			}
			off, n = off+part, n-part
		}
	}
}

// Text is the table as Parse reads it, or the status that dmsetup prints.
func (t *Table) Text(k StatusKind) string {
	var b strings.Builder
	for i := range t.rows {
		r := &t.rows[i]
		fmt.Fprintf(&b, "%d %d %s", r.start>>sectorShift, (r.end-r.start)>>sectorShift, r.typ.Name)
		if s := r.target.Status(k); s != "" {
			b.WriteByte(' ')
			b.WriteString(s)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// recheck finds what changed beneath the table since it was built and no
// longer fits it.
func (t *Table) recheck() error {
	for i := range t.rows {
		for _, s := range t.rows[i].target.Under() {
			n := s.Dev.Info()
			if s.Off+s.Len > n.Size {
				return fmt.Errorf("table row %d: %s has shrunk to %d sectors and the row needs %d",
					i+1, DeviceName(s.Dev), n.Size>>sectorShift, (s.Off+s.Len)>>sectorShift)
			}
			if n.LogicalBlock > t.block {
				return fmt.Errorf("table row %d: %s now has blocks of %d bytes, the table was built for %d",
					i+1, DeviceName(s.Dev), n.LogicalBlock, t.block)
			}
		}
	}
	return nil
}

// Close closes the targets, gives back their keys and closes their devices.
// No request may be under way.
func (t *Table) Close(ctx context.Context) error {
	var errs []error
	for i := range t.rows {
		errs = append(errs, t.rows[i].target.Close(), t.rows[i].builder.undo(ctx))
	}
	return errors.Join(errs...)
}
