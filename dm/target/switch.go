package target

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "switch", Features: dm.PassesCrypto,
		Usage: "<number of paths> <region sectors> 0 (<device> <start sector>)...", New: newSwitch,
	})
}

// maxRegions bounds the region table of one row at 128 MiB.
const maxRegions = 1 << 26

// switching sends each region of its row to the path that its region table
// says. Regions begin dealt out in turn; messages change the table, which is
// lost with the target.
//
// A flush goes to every path, as the kernel's does not (dm-fscrypt.md,
// invariant 12): the table sends it.
type switching struct {
	region, length int64 // bytes
	paths          []stripe
	table          atomic.Pointer[[]uint16] // the path of each region; never changed, only replaced
}

func newSwitch(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	n := a.Int("number of paths", 1, maxStripes)
	s := &switching{region: int64(upTo32Bits(a, "region size, in sectors", 1)) << 9, length: b.Len()}
	a.Int("number of options", 0, 0)
	if a.Err() == nil && a.Rest() != 2*n {
		a.Fail("number of options", fmt.Errorf("%d words follow, but %d paths take %d", a.Rest(), n, 2*n))
	}
	for i := 0; i < n && a.Err() == nil; i++ {
		s.paths = append(s.paths, stripe{name: a.String("device"), start: a.Sectors("start")})
	}
	if err := a.End(); err != nil {
		return nil, err
	}
	for i := range s.paths {
		p := &s.paths[i]
		var err error
		if p.dev, err = b.OpenSpan(p.name, p.start, s.length); err != nil {
			return nil, err
		}
		if lb := int64(p.dev.Info().LogicalBlock); s.region%lb != 0 {
			return nil, fmt.Errorf("regions of %d sectors are not whole blocks of device %q, which has %d bytes in one", s.region>>9, p.name, lb)
		}
	}
	regions := (s.length + s.region - 1) / s.region
	if regions > maxRegions {
		return nil, fmt.Errorf("%d regions are too many: at most %d", regions, maxRegions)
	}
	table := make([]uint16, regions)
	for i := range table {
		table[i] = uint16(i % n)
	}
	s.table.Store(&table)
	return s, nil
}

// Chunk is where requests are cut; a single path cuts none.
func (s *switching) Chunk() int64 {
	if len(s.paths) == 1 {
		return 0
	}
	return s.region
}

// Do passes a request that lies on one path on, and divides others. All of it
// goes by one region table.
//
// Hot: no allocation for a request on one path.
func (s *switching) Do(ctx context.Context, r block.Request) error {
	if len(s.paths) == 1 {
		return s.send(ctx, 0, r)
	}
	table := *s.table.Load()
	first, last := r.Off/s.region, (r.Off+max(r.Len, 1)-1)/s.region
	p := table[first]
	if first == last || !slices.ContainsFunc(table[first+1:last+1], func(q uint16) bool { return q != p }) {
		return s.send(ctx, p, r)
	}
	if err := wholeUnits(&r, s.region); err != nil {
		return err
	}
	var parts []block.Part
	for from := r.Off; from < r.Off+r.Len; { // one part for each run of regions on one path
		c := from / s.region
		p := table[c]
		for c++; c <= last && table[c] == p; c++ {
		}
		to := min(c*s.region, r.Off+r.Len)
		part := r.Sub(from-r.Off, to-from)
		part.Off += s.paths[p].start
		parts = append(parts, block.Part{Dev: s.paths[p].dev, Req: part})
		from = to
	}
	return block.Parallel(ctx, parts)
}

func (s *switching) send(ctx context.Context, p uint16, r block.Request) error {
	r.Off += s.paths[p].start
	return s.paths[p].dev.Do(ctx, r)
}

// Map moves r, which lies within one region, to its path.
func (s *switching) Map(r *block.Request) (block.Device, error) {
	p := &s.paths[(*s.table.Load())[r.Off/s.region]]
	r.Off += p.start
	return p.dev, nil
}

// Explain says which path has the byte at off.
func (s *switching) Explain(off int64) string {
	c := off / s.region
	return fmt.Sprintf("region %d, of %d sectors, is on path %d of %d", c, s.region>>9, (*s.table.Load())[c], len(s.paths))
}

// Message is set_region_mappings, whose words are
//
//	[<region>]:<path>  a region, by default the one after the last, and its path
//	R<n>,<m>           the last n mappings again, for the m regions that follow
//
// with all numbers in hex. It takes effect as a whole or not at all.
func (s *switching) Message(_ context.Context, words []string) (string, error) {
	if !strings.EqualFold(words[0], "set_region_mappings") {
		return "", fmt.Errorf("no message %q (there is: set_region_mappings)", words[0])
	}
	table := slices.Clone(*s.table.Load())
	at := uint64(0)
	for i, w := range words[1:] {
		var err error
		if w != "" && (w[0] == 'R' || w[0] == 'r') {
			at, err = repeat(table, at, w[1:])
		} else {
			at, err = s.assign(table, at, w)
		}
		if err != nil {
			return "", fmt.Errorf("%s: word %d: %q: %w", words[0], i+1, w, err)
		}
	}
	s.table.Store(&table)
	return "", nil
}

// assign carries out [<region>]:<path> and returns the region.
func (s *switching) assign(table []uint16, at uint64, w string) (uint64, error) {
	region, path, ok := strings.Cut(w, ":")
	if !ok {
		return 0, errors.New("is neither [REGION]:PATH nor RN,M")
	}
	at++
	if region != "" {
		var err error
		if at, err = hexNumber("region", region); err != nil {
			return 0, err
		}
	}
	p, err := hexNumber("path", path)
	switch {
	case err != nil:
		return 0, err
	case at >= uint64(len(table)):
		return 0, fmt.Errorf("region %#x: the last is %#x", at, len(table)-1)
	case p >= uint64(len(s.paths)):
		return 0, fmt.Errorf("path %#x: the last is %#x", p, len(s.paths)-1)
	}
	table[at] = uint16(p)
	return at, nil
}

// repeat carries out R<n>,<m> without the R and returns the last region.
func repeat(table []uint16, at uint64, w string) (uint64, error) {
	last, times, ok := strings.Cut(w, ",")
	if !ok {
		return 0, errors.New("is not of the form RN,M")
	}
	n, err := hexNumber("number of mappings", last)
	if err != nil {
		return 0, err
	}
	m, err := hexNumber("number of regions", times)
	switch {
	case err != nil:
		return 0, err
	case n == 0 || n-1 > at:
		return 0, fmt.Errorf("%#x mappings up to region %#x: there are %#x", n, at, at+1)
	case m >= uint64(len(table))-at:
		return 0, fmt.Errorf("%#x regions after region %#x: the last is %#x", m, at, len(table)-1)
	}
	for range m {
		at++
		table[at] = table[at-n]
	}
	return at, nil
}

func hexNumber(what, s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%s %q is not a number in hex", what, s)
	}
	return n, nil
}

func (s *switching) Info() block.Info {
	sum := s.paths[0].dev.Info()
	for _, p := range s.paths[1:] {
		sum = together(sum, p.dev.Info())
	}
	return sum
}

func (s *switching) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	table := *s.table.Load()
	return inPlaces(ctx, off, n, func(off int64) (block.Device, int64, int64) {
		c := off / s.region
		p := &s.paths[table[c]]
		return p.dev, p.start + off, (c+1)*s.region - off
	})
}

func (s *switching) Under() []block.Span {
	spans := make([]block.Span, len(s.paths))
	for i, p := range s.paths {
		spans[i] = block.Span{Dev: p.dev, Off: p.start, Len: s.length}
	}
	return spans
}

func (s *switching) Status(k dm.StatusKind) string {
	if k == dm.StatusInfo {
		return ""
	}
	words := []string{fmt.Sprint(len(s.paths)), fmt.Sprint(s.region >> 9), "0"}
	for _, p := range s.paths {
		words = append(words, dm.QuoteWord(p.name), fmt.Sprint(p.start>>9))
	}
	return strings.Join(words, " ")
}

// Close leaves the devices to the builder that opened them.
func (s *switching) Close() error { return nil }
