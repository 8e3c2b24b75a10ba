package dm_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// narrow is a software engine that advertises less.
type narrow struct {
	keyslot.Engine
	profile blkcrypto.Profile
}

func (n narrow) Profile() blkcrypto.Profile { return n.profile }

func narrowEngine(name string, configs ...blkcrypto.Config) *keyslot.Manager {
	n := narrow{Engine: soft.New(name, 2)}
	for _, c := range configs {
		n.profile.Add(c)
	}
	return keyslot.New(n)
}

func changed(c blkcrypto.Config, f func(*blkcrypto.Config)) blkcrypto.Config {
	f(&c)
	return c
}

// TestExplainEveryReason: why a context is not served beneath, in a word and
// in words that name what it is.
func TestExplainEveryReason(t *testing.T) {
	bySector := changed(xts4k, func(c *blkcrypto.Config) { c.Numbering = blkcrypto.BySector })
	for _, c := range []struct {
		name   string
		engine *keyslot.Manager // of disk "e"; nil: takes everything
		tables []string         // of the devices d0, d1, ...; the last is asked
		config blkcrypto.Config
		q      dm.Question
		reason dm.Reason
		why    string // contained
		at     string // the device that decides
	}{
		{
			name: "target", tables: []string{"0 2048 crypt aes-xts-plain64 " + metaKey + " 0 e 0 2 sector_size:4096 iv_large_sectors"},
			reason: dm.TargetDeclines, why: "target crypt passes no contexts", at: "d0",
		},
		{
			name: "target further down, in another row", tables: []string{"0 1024 linear e 0\n1024 1024 zero", "0 2048 linear d0 0"},
			reason: dm.TargetDeclines, why: `target zero, row 2 of device "d0", passes no contexts`, at: "d1",
		},
		{
			name: "mark", tables: []string{"0 2048 default-key aes-xts-plain64 " + metaKey + " 0 e 0 2 sector_size:4096 iv_large_sectors", "0 2048 linear d0 0"},
			reason: dm.NeedsMark, why: "marked to skip its own key", at: "d0",
		},
		{
			name: "chunk", tables: []string{"0 2048 striped 2 4 e 0 e 1024"}, q: dm.Question{Sector: 9},
			reason: dm.ChunkCuts, why: "chunks of 4 sectors cut data units of 4096 bytes", at: "d0",
		},
		{
			name: "chunk, of a row that begins inside a unit", tables: []string{"0 4 linear e 0\n4 1024 striped 2 8 e 0 e 512"}, q: dm.Question{Sector: 16},
			reason: dm.ChunkCuts, why: "from sector 4 on", at: "d0",
		},
		{
			name: "chunk beneath", tables: []string{"0 2048 striped 2 4 e 0 e 1024", "0 2048 linear d0 0"},
			reason: dm.ChunkCuts, why: `device "d0": chunks of 4 sectors`, at: "d1",
		},
		{
			name: "row", tables: []string{"0 1023 linear e 0\n1023 1025 linear e 1023"}, q: dm.Question{Sector: 1023},
			reason: dm.RowCuts, why: "a row ends after sector 1022, inside the data unit of 4096 bytes at sector 1016", at: "d0",
		},
		{
			name: "row beneath", tables: []string{"0 1023 linear e 0\n1023 1025 linear e 1023", "0 2048 linear d0 0"},
			reason: dm.RowCuts, why: `row 2 of device "d0" begins at sector 1023`, at: "d1",
		},
		{name: "no engine", tables: []string{"0 2048 linear none 0"}, reason: dm.NoEngine, why: `device "none" has no inline engine`, at: "d0"},
		{
			name: "no engine, four levels down",
			tables: []string{
				"0 2048 linear none 0", "0 2048 linear d0 0", "0 2048 striped 1 8 d1 0", "0 2048 linear d2 0",
			},
			reason: dm.NoEngine, why: `device "none" has no inline engine`, at: "d3",
		},
		{
			name: "mode", engine: narrowEngine("E", changed(xts4k, func(c *blkcrypto.Config) { c.Mode, c.DUNBytes = blkcrypto.Adiantum, 32 })),
			tables: []string{"0 2048 linear e 0"},
			reason: dm.LacksMode, why: "E lacks mode AES-256-XTS (it has Adiantum)", at: "d0",
		},
		{
			name: "key type", engine: narrowEngine("E", changed(xts4k, func(c *blkcrypto.Config) { c.KeyType = blkcrypto.HWWrapped })),
			tables: []string{"0 2048 linear e 0"},
			reason: dm.LacksKeyType, why: "E lacks key type raw (it has hw-wrapped)", at: "d0",
		},
		{
			name: "data unit", engine: narrowEngine("E", changed(xts4k, func(c *blkcrypto.Config) { c.DataUnitSize = 512 })),
			tables: []string{"0 2048 linear e 0"},
			reason: dm.LacksDataUnit, why: "E lacks data unit size 4096 (it has 512)", at: "d0",
		},
		{
			name: "numbering", engine: narrowEngine("E", xts4k), config: bySector, tables: []string{"0 2048 linear e 0"},
			reason: dm.LacksNumbering, why: "E lacks numbering by sector (it has by unit)", at: "d0",
		},
		{
			name: "dun bytes", engine: narrowEngine("E", changed(xts4k, func(c *blkcrypto.Config) { c.DUNBytes = 4 })),
			tables: []string{"0 2048 linear e 0"},
			reason: dm.LacksDUNBytes, why: "E lacks data unit numbers of 8 bytes (it has 4)", at: "d0",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := dmtest.New(t)
			if c.engine == nil {
				c.engine = newEngine(2)
			}
			w.Leaf("e", dmtest.NewRAM(1<<20), c.engine)
			w.Disk("none", 1<<20, 0)
			for i, text := range c.tables {
				w.Map(fmt.Sprint("d", i), text)
			}
			if c.config.Mode == 0 {
				c.config = xts4k
			}
			c.q.Key = dmtest.NewKey(t, "upper", c.config, 3)
			x, err := w.Device(fmt.Sprint("d", len(c.tables)-1)).Explain(c.q)
			if err != nil || x.Fails != nil {
				t.Fatalf("%v, fails: %v", err, x.Fails)
			}
			if len(x.Ciphers) == 0 || x.Ciphers[0].By != dm.ByFallback || x.Ciphers[0].Device != c.at {
				t.Errorf("ciphers %+v, want the fallback at %s first", x.Ciphers, c.at)
			}
			for _, s := range x.Steps {
				d := s.Decision
				if s.Device == c.at && (d == nil || d.Reason != c.reason || !strings.Contains(d.Why, c.why)) {
					t.Errorf("%s: %+v, want %s, ...%s...", s.Device, d, c.reason, c.why)
				}
			}
		})
	}
}

// TestExplainServedBeneath: the way of a context to an engine, with number,
// slot and place at each level.
func TestExplainServedBeneath(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 2)
	w.Disk("b", 1<<20, 2)
	w.Map("s", "0 4096 striped 2 16 a 0 b 0")
	w.Map("l", "0 1000 linear s 96\n1000 1000 linear s 1096")
	top := w.Map("top", "0 2000 default-key aes-xts-plain64 "+metaKey+" 80 l 0 2 sector_size:4096 iv_large_sectors")
	ask := func() dm.Explanation {
		t.Helper()
		x, err := top.Explain(dm.Question{Sector: 1013, Write: true})
		if err != nil || x.Fails != nil || len(x.Steps) != 4 || x.Medium == nil {
			t.Fatalf("%+v, %v", x, err)
		}
		return x
	}
	x := ask()
	// Sector 1013 is in the block at 1008. Its unit is 80/8 + 126. Sector 1013
	// of l is in row 2: 1109 of s, which is in chunk 69: chunk 34 of stripe 2.
	if x.Off != 1008*512 || x.Len != 4096 || x.Op != block.OpWrite {
		t.Errorf("%v of %d at %d", x.Op, x.Len, x.Off)
	}
	add := x.Steps[0].Adds
	if add == nil || add.DUN != blkcrypto.DUN64(136) || add.Within != 5*512 || x.Steps[0].Carries != nil {
		t.Errorf("first step %+v, adds %+v", x.Steps[0], add)
	}
	for i, want := range []struct {
		device   string
		sector   int64
		row      int
		by       dm.By
		contains string
	}{
		{"top", 1013, 1, "", ""},
		{"l", 1013, 2, dm.ByBeneath, ""},
		{"s", 1109, 1, dm.ByBeneath, "chunk 69, of 16 sectors, is chunk 34 of stripe 2 of 2"},
		{"b", 34*16 + 5, 1, dm.ByEngine, ""},
	} {
		s := x.Steps[i]
		if s.Device != want.device || s.Sector != want.sector || s.Row != want.row || !strings.Contains(s.Says, want.contains) {
			t.Errorf("step %d: %+v, want %+v", i, s, want)
		}
		if want.by != "" && (s.Decision == nil || s.Decision.By != want.by || s.Carries.DUN != blkcrypto.DUN64(136)) {
			t.Errorf("step %d: decision %+v of %+v", i, s.Decision, s.Carries)
		}
	}
	if m := *x.Medium; m != (dm.Medium{Device: "b", Backend: "ram:b", Off: (34*16 + 5) * 512}) {
		t.Errorf("medium %+v", m)
	}
	if d := x.Steps[3].Decision; d.Slot != -1 || !strings.Contains(d.State, "in no keyslot yet") {
		t.Errorf("before: %+v", d)
	}
	dmtest.Read(t, top, 1008*512, 4096)
	if d := ask().Steps[3].Decision; d.Slot != 0 || d.State != "keyslot 0" || d.Engine != "b's engine" {
		t.Errorf("after: %+v", d)
	}
}

// TestExplainWholeUnitsBesideACutOne: a row ends inside the last unit of a request. The
// units before it go down with the context, as they do when the request is sent.
func TestExplainWholeUnitsBesideACutOne(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("e", 1<<20, 2)
	w.Map("cut", "0 63 linear e 0\n63 17 linear e 400")
	top := w.Map("top", "0 64 inlinecrypt aes-xts-plain64 "+metaKey+" 0 cut 0 2 sector_size:1024 iv_large_sectors")
	key := dmtest.NewKey(t, "upper", xts4k, 1) // which brings requests of 4096 bytes
	for sector, by := range map[int64]dm.By{56: dm.ByBeneath, 61: dm.ByBeneath, 62: dm.ByFallback, 63: dm.ByFallback} {
		x, err := top.Explain(dm.Question{Sector: sector, Key: key})
		if err != nil || x.Fails != nil || len(x.Steps) != 3 {
			t.Errorf("sector %d: %v, fails with %v: %+v", sector, err, x.Fails, x)
			continue
		}
		if d := x.Steps[1].Decision; d == nil || d.By != by {
			t.Errorf("sector %d: %+v, want %s", sector, d, by)
		}
	}
	dmtest.Read(t, top, 56*512, 4096)
}

// TestExplainWhatKeepsARequest: suspension, missing tables, evicted keys,
// read-only tables, targets where everything ends.
func TestExplainWhatKeepsARequest(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 2)
	w.Map("l", "0 2048 linear a 0")
	top := w.Map("top", "0 1024 linear l 0\n1024 8 zero\n1032 8 error\n1040 8 delay a 0 0 l 0 0")
	x, err := top.Explain(dm.Question{})
	if err != nil || x.Waits != nil || x.Fails != nil || x.Ciphers != nil || x.Medium == nil {
		t.Errorf("at rest: %+v, %v", x, err)
	}
	if err := w.Device("l").Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	if x, _ = top.Explain(dm.Question{}); len(x.Waits) != 1 || x.Waits[0] != "l" || !x.Steps[1].Suspended || x.Medium == nil {
		t.Errorf("suspended: %+v", x)
	}
	if err := w.Device("l").Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x, _ = top.Explain(dm.Question{Sector: 1030}); x.Medium != nil || x.Fails != nil || x.Steps[0].Says == "" {
		t.Errorf("zero: %+v", x)
	}
	if x, _ = top.Explain(dm.Question{Sector: 1035}); x.Medium != nil || !errors.Is(x.Fails, block.ErrIO) {
		t.Errorf("error: %+v", x)
	}
	for _, sector := range []int64{-1, 1048} {
		if _, err := top.Explain(dm.Question{Sector: sector}); err == nil {
			t.Errorf("sector %d is explained", sector)
		}
	}
	if _, err := dm.New("empty", dm.Options{}).Explain(dm.Question{}); !errors.Is(err, dm.ErrNoTable) {
		t.Errorf("no table: %v", err)
	}

	k := dmtest.NewKey(t, "k", xts4k, 1)
	if _, err := k.Evict(t.Context()); err != nil {
		t.Fatal(err)
	}
	x, err = top.Explain(dm.Question{Key: k})
	if err != nil || !errors.Is(x.Fails, blkcrypto.ErrKeyEvicted) || x.Ciphers[0].By != dm.ByNobody {
		t.Errorf("evicted: %+v, %v", x, err)
	}
	small := changed(xts4k, func(c *blkcrypto.Config) { c.DUNBytes = 1 })
	dun := blkcrypto.DUN64(256)
	if x, _ = top.Explain(dm.Question{Key: dmtest.NewKey(t, "s", small, 1), DUN: &dun}); !errors.Is(x.Fails, block.ErrInvalid) || x.Medium != nil {
		t.Errorf("number too large: %+v", x)
	}
	ram := dmtest.NewRAM(1 << 20)
	ram.SetInfo(func(i *block.Info) { i.ReadOnly = true })
	ro := w.Leaf("ro", ram, nil)
	if x, _ = ro.Explain(dm.Question{Write: true}); !errors.Is(x.Fails, block.ErrReadOnly) || x.Medium != nil {
		t.Errorf("read-only: %+v", x)
	}
	if x, _ = ro.Explain(dm.Question{}); x.Fails != nil || x.Medium == nil {
		t.Errorf("read of read-only: %+v", x)
	}
	big := dmtest.NewRAM(1 << 20)
	big.SetInfo(func(i *block.Info) { i.LogicalBlock = 4096 })
	unit := changed(xts4k, func(c *blkcrypto.Config) { c.DataUnitSize = 512 })
	two := blkcrypto.DUN64(2)
	if _, err := w.Leaf("big", big, nil).Explain(dm.Question{Sector: 5, Key: dmtest.NewKey(t, "u", unit, 1), DUN: &two}); err == nil {
		t.Error("a number that the block's first unit cannot have is explained")
	}
}

// silent is a target that does not tell where it sends requests.
type silent struct{ dm.Target }

func init() {
	dm.Register(dm.TargetType{Name: "silent", Features: dm.PassesCrypto, New: func(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
		dev, err := b.OpenSpan(a.String("device"), 4096, b.Len())
		return silent{quiet{dev, b.Len()}}, errors.Join(err, a.End())
	}})
}

type quiet struct {
	block.Device
	n int64
}

func (q quiet) Do(ctx context.Context, r block.Request) error {
	r.Off += 4096
	return q.Device.Do(ctx, r)
}
func (q quiet) Under() []block.Span         { return []block.Span{{Dev: q.Device, Off: 4096, Len: q.n}} }
func (q quiet) Status(dm.StatusKind) string { return "" }

func TestExplainTargetThatDoesNotTell(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 2)
	x, err := w.Map("m", "0 1024 silent a").Explain(dm.Question{Sector: 3, Key: dmtest.NewKey(t, "k", xts4k, 1)})
	if err != nil || x.Medium != nil || !x.Steps[0].Unknown || len(x.Steps[0].To) != 1 || x.Steps[0].To[0] != (dm.Place{Device: "a", Sector: 11}) {
		t.Errorf("%+v, %v", x, err)
	}
	if x.Steps[0].Decision.By != dm.ByBeneath {
		t.Errorf("decision %+v", x.Steps[0].Decision)
	}
}
