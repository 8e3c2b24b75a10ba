package target

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "striped", Features: dm.PassesCrypto,
		Usage: "<number of stripes> <chunk sectors> (<device> <start sector>)...", New: newStriped,
	})
}

// maxStripes bounds what one row opens.
const maxStripes = 1024

// striped deals chunks of its row out to its stripes in turn.
type striped struct {
	chunk   int64 // bytes
	length  int64 // of each stripe, bytes
	stripes []stripe
}

type stripe struct {
	dev   block.Device
	name  string
	start int64 // bytes
}

func newStriped(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	n := a.Int("number of stripes", 1, maxStripes)
	s := &striped{chunk: a.Sectors("chunk size")}
	if a.Err() == nil && s.chunk == 0 {
		a.Fail("chunk size, in sectors", fmt.Errorf("a chunk has at least one sector"))
	}
	for i := 0; i < n && a.Err() == nil; i++ {
		s.stripes = append(s.stripes, stripe{name: a.String("device"), start: a.Sectors("start")})
	}
	if err := a.End(); err != nil {
		return nil, err
	}
	s.length = b.Len() / int64(n)
	if b.Len()%int64(n) != 0 || s.length%s.chunk != 0 {
		return nil, fmt.Errorf("%d sectors cannot be dealt out in chunks of %d to %d stripes: the length must be a multiple of %d",
			b.Len()>>9, s.chunk>>9, n, int64(n)*s.chunk>>9)
	}
	for i := range s.stripes {
		dev, err := b.OpenSpan(s.stripes[i].name, s.stripes[i].start, s.length)
		if err != nil {
			return nil, err
		}
		if lb := int64(dev.Info().LogicalBlock); s.chunk%lb != 0 {
			return nil, fmt.Errorf("chunks of %d sectors are not whole blocks of device %q, which has %d bytes in one",
				s.chunk>>9, s.stripes[i].name, lb)
		}
		s.stripes[i].dev = dev
	}
	return s, nil
}

// Chunk is where requests are cut; a single stripe cuts none.
func (s *striped) Chunk() int64 {
	if len(s.stripes) == 1 {
		return 0
	}
	return s.chunk
}

// Do passes a request within one chunk on, and divides others.
//
// Hot: no allocation for a request within one chunk.
func (s *striped) Do(ctx context.Context, r block.Request) error {
	if r.Len <= s.chunk-r.Off%s.chunk || len(s.stripes) == 1 {
		dev, _ := s.Map(&r)
		return dev.Do(ctx, r)
	}
	if r.Crypt.Active() {
		return s.doCrypt(ctx, r)
	}
	return block.Parallel(ctx, s.perStripe(r))
}

// Map moves r, which lies within one chunk, to its place on its stripe.
func (s *striped) Map(r *block.Request) (block.Device, error) {
	c, n := r.Off/s.chunk, int64(len(s.stripes))
	t := &s.stripes[c%n]
	r.Off += t.start + (c/n-c)*s.chunk
	return t.dev, nil
}

// Explain says which stripe has the byte at off.
func (s *striped) Explain(off int64) string {
	c, n := off/s.chunk, int64(len(s.stripes))
	return fmt.Sprintf("chunk %d, of %d sectors, is chunk %d of stripe %d of %d", c, s.chunk>>9, c/n, c%n+1, n)
}

// position returns how many bytes of the row before off lie on stripe i.
func (s *striped) position(i int, off int64) int64 {
	n := int64(len(s.stripes))
	c := off / s.chunk
	row, at := c/n, c%n
	switch {
	case int64(i) < at:
		return (row + 1) * s.chunk
	case int64(i) == at:
		return row*s.chunk + off%s.chunk
	}
	return row * s.chunk
}

// perStripe makes one request for each stripe: what a range covers of a
// stripe is one range there, however many chunks it spans.
func (s *striped) perStripe(r block.Request) []block.Part {
	parts := make([]block.Part, 0, len(s.stripes))
	for i := range s.stripes {
		t := &s.stripes[i]
		from, to := s.position(i, r.Off), s.position(i, r.Off+r.Len)
		if from == to {
			continue
		}
		p := r
		p.Off, p.Len = t.start+from, to-from
		if r.Op.HasData() {
			p.Data = s.gather(i, r)
		}
		parts = append(parts, block.Part{Dev: t.dev, Req: p})
	}
	return parts
}

// gather returns the data of r that lies on stripe i.
func (s *striped) gather(i int, r block.Request) block.Segments {
	var v [][]byte
	n := int64(len(s.stripes))
	end := r.Off + r.Len
	first := r.Off / s.chunk
	first += (int64(i) - first%n + n) % n
	for c := first; c*s.chunk < end; c += n {
		from, to := max(c*s.chunk, r.Off), min((c+1)*s.chunk, end)
		for b := range r.Data.Slice(int(from-r.Off), int(to-from)).All() {
			v = append(v, b)
		}
	}
	return block.Vec(v)
}

// doCrypt makes one request for each chunk, since the numbers of data units
// leap from chunk to chunk of a stripe. The table keeps requests away whose
// data units a chunk boundary would cut.
func (s *striped) doCrypt(ctx context.Context, r block.Request) error {
	unit := int64(r.Crypt.Key.Config().DataUnitSize)
	if (r.Off|s.chunk)&(unit-1) != 0 {
		return fmt.Errorf("%w: chunks of %d bytes cut data units of %d", block.ErrNoCrypto, s.chunk, unit)
	}
	var parts []block.Part
	for done := int64(0); done < r.Len; {
		p := r.Sub(done, min(s.chunk-(r.Off+done)%s.chunk, r.Len-done))
		dev, _ := s.Map(&p)
		parts = append(parts, block.Part{Dev: dev, Req: p})
		done += p.Len
	}
	return block.Parallel(ctx, parts)
}

func (s *striped) Info() block.Info {
	sum := s.stripes[0].dev.Info()
	for _, t := range s.stripes[1:] {
		i := t.dev.Info()
		sum.LogicalBlock = max(sum.LogicalBlock, i.LogicalBlock)
		sum.PhysicalBlock = max(sum.PhysicalBlock, i.PhysicalBlock)
		sum.FUA, sum.Discard, sum.Zeroes = min(sum.FUA, i.FUA), min(sum.Discard, i.Discard), min(sum.Zeroes, i.Zeroes)
		sum.VolatileCache = sum.VolatileCache || i.VolatileCache
		sum.NeverBlocks = sum.NeverBlocks && i.NeverBlocks
		sum.WritesBlock = sum.WritesBlock || i.WritesBlock
		sum.Crypto = sum.Crypto.Intersect(i.Crypto)
	}
	sum.MinIO, sum.OptIO = int(s.chunk), int(s.chunk)*len(s.stripes)
	return sum
}

// Extents walks the chunks in order.
func (s *striped) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return inPlaces(ctx, off, n, func(off int64) (block.Device, int64, int64) {
		c, count := off/s.chunk, int64(len(s.stripes))
		in := off - c*s.chunk
		t := &s.stripes[c%count]
		return t.dev, t.start + c/count*s.chunk + in, s.chunk - in
	})
}

func (s *striped) Under() []block.Span {
	spans := make([]block.Span, len(s.stripes))
	for i, t := range s.stripes {
		spans[i] = block.Span{Dev: t.dev, Off: t.start, Len: s.length}
	}
	return spans
}

func (s *striped) Status(k dm.StatusKind) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", len(s.stripes))
	if k == dm.StatusTable {
		fmt.Fprintf(&b, " %d", s.chunk>>9)
	}
	for _, t := range s.stripes {
		fmt.Fprintf(&b, " %s", dm.QuoteWord(t.name))
		if k == dm.StatusTable {
			fmt.Fprintf(&b, " %d", t.start>>9)
		}
	}
	if k == dm.StatusInfo {
		fmt.Fprintf(&b, " 1 %s", strings.Repeat("A", len(s.stripes)))
	}
	return b.String()
}

// Close leaves the devices to the builder that opened them.
func (s *striped) Close() error { return nil }
