package dm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/race"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// TestExplanationIsWhatHappens: on random stacks the request does what was
// explained. The engines that it programs are those of the explanation, the
// error is the one foretold, and on the medium, where the explanation says,
// lie the data under exactly the ciphers that it names, in their order.
func TestExplanationIsWhatHappens(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	n := 400
	if race.Enabled {
		n = 150
	}
	kinds := map[string]int{}
	for i := range n {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		s := newStack(t, r)
		if !s.tryOne(t, r, kinds) {
			t.Fatalf("seed %d, stack %d:\n%s", seed, i, s.text.String())
		}
	}
	t.Logf("%v", kinds)
	for _, want := range []string{"engine", "fallback", "plain", "twice", "fails"} {
		if kinds[want] == 0 {
			t.Errorf("no stack of %d had %q: %v", n, want, kinds)
		}
	}
}

type stack struct {
	w       *dmtest.World
	engines map[string]*keyslot.Manager // by name
	media   map[string]*dmtest.RAM      // by leaf
	keys    map[string][]byte           // by name
	sizes   map[string]int64            // of the devices, in sectors
	names   []string
	text    strings.Builder
}

var someConfigs = func() (all []blkcrypto.Config) {
	for _, unit := range []int{512, 1024, 4096} {
		for _, dun := range []int{2, 8} {
			for _, n := range []blkcrypto.Numbering{blkcrypto.ByUnit, blkcrypto.BySector} {
				all = append(all, blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: dun, Numbering: n})
			}
		}
	}
	return all
}()

// newStack makes two disks and up to four levels over them.
func newStack(t *testing.T, r *rand.Rand) *stack {
	s := &stack{
		w: dmtest.NewWithFallback(t, 16), engines: map[string]*keyslot.Manager{}, media: map[string]*dmtest.RAM{},
		keys: map[string][]byte{}, sizes: map[string]int64{},
	}
	s.engines["fallback"] = s.w.Fallback()
	for _, name := range []string{"a", "b"} {
		d := dmtest.NewRAM(1 << 18)
		d.Set(pattern(r, 1<<18))
		var e *keyslot.Manager
		switch r.IntN(4) {
		case 0:
		case 1:
			e = narrowEngine(name+"'s engine", someConfigs[r.IntN(len(someConfigs))], someConfigs[r.IntN(len(someConfigs))])
		default:
			e = keyslot.New(soft.New(name+"'s engine", 4))
		}
		if e != nil {
			s.engines[e.Name()] = e
		}
		s.w.Leaf(name, d, e)
		s.media[name], s.sizes[name] = d, 512
		s.names = append(s.names, name)
		fmt.Fprintf(&s.text, "%s: engine %v\n", name, e != nil)
	}
	for level := range 1 + r.IntN(4) {
		s.add(fmt.Sprint("m", level), r)
	}
	return s
}

// under picks a device, the newest most often.
func (s *stack) under(r *rand.Rand) string {
	if r.IntN(3) > 0 {
		return s.names[len(s.names)-1]
	}
	return s.names[r.IntN(len(s.names))]
}

func (s *stack) add(name string, r *rand.Rand) {
	row := func(at, n int64) string {
		dev := s.under(r)
		start := r.Int64N(max(s.sizes[dev]-n, 0)/8+1) * 8 // what does not fit is refused, and another is made
		switch r.IntN(12) {
		case 0:
			return fmt.Sprintf("%d %d error\n", at, n)
		case 1:
			return fmt.Sprintf("%d %d zero\n", at, n)
		case 2:
			return fmt.Sprintf("%d %d flakey %s %d 3600 0\n", at, n, dev, start)
		}
		if r.IntN(4) == 0 {
			start -= min(start, r.Int64N(3)) // not aligned to units
		}
		return fmt.Sprintf("%d %d linear %s %d\n", at, n, dev, start)
	}
	for {
		var text string
		size := int64(64 + 8*r.IntN(6))
		dev := s.under(r)
		switch kind := r.IntN(6); kind {
		case 0:
			text = row(0, size)
		case 1:
			cut := []int64{8, 16, 21, 30, 63}[r.IntN(5)]
			text = row(0, cut) + row(cut, size-cut)
		case 2:
			size = 64
			text = fmt.Sprintf("0 64 striped 2 %d %s 0 %s 8\n", 1<<r.IntN(5), s.under(r), dev)
		default:
			key := rawKey(xts4k, byte(r.IntN(256)))
			s.keys[fmt.Sprintf("key-%x", key[:4])] = key
			options := []string{"", " 2 sector_size:4096 iv_large_sectors", " 2 sector_size:1024 iv_large_sectors"}
			if kind == 5 {
				options = append(options, " 1 sector_size:4096")
			}
			text = fmt.Sprintf("0 %d %s aes-xts-plain64 %x %d %s 0%s\n", size, []string{"default-key", "inlinecrypt", "crypt"}[kind-3], key,
				[]int64{0, 8, 1 << 20}[r.IntN(3)], dev, options[r.IntN(len(options))])
		}
		if table, err := s.w.Parse(text); err != nil {
			continue // blocks or sizes that do not fit
		} else if err := table.Close(context.Background()); err != nil {
			panic(err)
		}
		s.w.Map(name, text)
		s.sizes[name] = size
		s.names = append(s.names, name)
		fmt.Fprintf(&s.text, "%s: %s", name, text)
		return
	}
}

// tryOne asks about one request and sends it.
func (s *stack) tryOne(t *testing.T, r *rand.Rand, kinds map[string]int) (ok bool) {
	t.Helper()
	name := s.names[len(s.names)-1]
	q := dm.Question{Sector: r.Int64N(s.sizes[name]), Write: r.IntN(2) == 0, Marked: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		c := someConfigs[r.IntN(len(someConfigs))]
		seed := byte(r.IntN(256))
		q.Key = dmtest.NewKey(t, "upper", c, seed)
		s.keys["upper"] = rawKey(c, seed)
		if r.IntN(3) == 0 {
			dun := blkcrypto.DUN64(uint64(1000 + r.IntN(65000)))
			q.DUN = &dun
		}
	}
	fmt.Fprintf(&s.text, "%s: %+v\n", name, q)
	x, err := s.w.Device(name).Explain(q)
	if err != nil {
		t.Error(err)
		return false
	}
	fmt.Fprintf(&s.text, "%+v\n", x)

	data := pattern(r, int(x.Len))
	req := block.Request{Op: x.Op, Off: x.Off, Len: x.Len, Data: block.Bytes(bytes.Clone(data))}
	if q.Marked {
		req.Flags = block.SkipDefaultKey
	}
	if q.Key != nil {
		c := x.Steps[0].Carries
		if c == nil {
			t.Errorf("the first step has no context")
			return false
		}
		before := (q.Sector*512 - x.Off) &^ int64(c.Config.DataUnitSize-1)
		req.Crypt = blkcrypto.Context{Key: q.Key, DUN: c.DUN}.Rewind(before)
	}
	programs := map[string]uint64{}
	for name, e := range s.engines {
		programs[name] = e.Stats().Programs
	}
	err = s.w.Handle(name).Do(t.Context(), req)
	ok = true
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf(format, args...)
		ok = false
	}
	if len(x.Waits) > 0 {
		bad("waits for %v", x.Waits)
	}
	if x.Fails != nil {
		kinds["fails"]++
		for _, e := range []error{block.ErrIO, block.ErrNoCrypto, block.ErrInvalid, block.ErrOutOfRange} {
			if errors.Is(x.Fails, e) != errors.Is(err, e) {
				bad("fails with %v, explained: %v", err, x.Fails)
			}
		}
		return ok
	}
	if err != nil {
		// Another part of the request may fail: only the one in question counts.
		if x.Len == 512 {
			bad("fails: %v", err)
		}
		return ok
	}

	want := map[string]map[uint64]bool{}
	for _, c := range x.Ciphers {
		if want[c.Engine] == nil {
			want[c.Engine] = map[uint64]bool{}
		}
		want[c.Engine][c.ID] = true
		kinds[string(c.By)]++
	}
	switch len(x.Ciphers) {
	case 0:
		kinds["plain"]++
	case 1:
	default:
		kinds["twice"]++
	}
	for name, e := range s.engines {
		// A longer request may go other ways too.
		got := e.Stats().Programs - programs[name]
		if n := uint64(len(want[name])); got < n || got > n && x.Len == 512 {
			bad("%s programmed %d keys, explained: %d", name, got, n)
		}
	}
	if !q.Write {
		req.Data.CopyTo(data)
	}
	sector := bytes.Clone(data[q.Sector*512-x.Off:][:512])
	if x.Medium == nil {
		if !q.Write && !bytes.Equal(sector, make([]byte, 512)) && len(x.Ciphers) == 0 {
			bad("no medium, and it does not read as zeroes")
		}
		return ok
	}
	if q.Write && s.overlaps(t, q, x) {
		kinds["overlaps"]++ // two stripes share a place, and either may be the last there
		return ok
	}
	for _, c := range x.Ciphers {
		unit := make([]byte, c.Config.DataUnitSize)
		copy(unit[c.Within:], sector)
		sector = encrypted(s.keys[c.Key], c.Config, c.DUN, unit)[c.Within:][:512]
	}
	if got := s.media[x.Medium.Device].Bytes()[x.Medium.Off:][:512]; !bytes.Equal(got, sector) {
		bad("on %s at %d lies not what was explained", x.Medium.Device, x.Medium.Off)
	}
	again, err := s.w.Device(name).Explain(q)
	if err != nil {
		bad("again: %v", err)
	}
	for _, s := range again.Steps {
		if d := s.Decision; d != nil && d.By != dm.ByBeneath && d.Slot < 0 {
			bad("%s: the key is in no slot after the request: %+v", s.Device, d)
		}
	}
	return ok
}

// overlaps reports whether another sector of the request goes to the same place
// on the medium.
func (s *stack) overlaps(t *testing.T, q dm.Question, x dm.Explanation) bool {
	asked := q.Sector
	for q.Sector = x.Off / 512; q.Sector < (x.Off+x.Len)/512; q.Sector++ {
		if q.Sector == asked {
			continue
		}
		other, err := s.w.Device(s.names[len(s.names)-1]).Explain(q)
		if err != nil {
			t.Error(err)
			return true
		}
		if other.Medium != nil && *other.Medium == *x.Medium {
			return true
		}
	}
	return false
}
