package nbd

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"keyway/export"
	"keyway/internal/nbdproto"
)

func TestReadShapes(t *testing.T) {
	for _, blocks := range []bool{false, true} {
		t.Run(fmt.Sprintf("blocks=%v", blocks), func(t *testing.T) {
			dev := newMemory(4 << 20)
			dev.blocks.Store(blocks)
			_, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev})
			w := enter(t, dial(), "d", nbdproto.Simple, false)
			do(t, w, nbdproto.CmdWrite, 0, 128<<10, 64<<10, fill(64<<10, 3), 0)
			for _, s := range []nbdproto.Style{nbdproto.Structured, nbdproto.Extended} {
				c := enter(t, dial(), "d", s, false)
				shape := func(off, n uint64, flags uint16) string {
					var l []string
					a := do(t, c, nbdproto.CmdRead, flags, off, n, nil, 0)
					for i, k := range a.Chunks {
						switch a.Heads[i].Type {
						case nbdproto.ReplyOffsetHole:
							l = append(l, fmt.Sprintf("hole %dK", k.Hole>>10))
						case nbdproto.ReplyOffsetData:
							l = append(l, fmt.Sprintf("data %dK", len(k.Data)>>10))
						case nbdproto.ReplyNone:
							l = append(l, "none")
						}
					}
					dev.mu.Lock()
					defer dev.mu.Unlock()
					if !bytes.Equal(a.Data, dev.data[off:off+n]) {
						t.Errorf("%v: %d at %d: wrong data", s, n, off)
					}
					return strings.Join(l, ", ")
				}
				for _, k := range []struct {
					off, n uint64
					flags  uint16
					want   string
					worker string // if it differs there
				}{
					{0, 4096, 0, "hole 4K", ""},
					{0, 4096, nbdproto.CmdFlagDF, "data 4K", ""},
					{128 << 10, 4096, 0, "data 4K", ""},
					{64 << 10, 256 << 10, 0, "hole 64K, data 64K, hole 128K", "data 256K"},
					{64 << 10, 256 << 10, nbdproto.CmdFlagDF, "data 256K", ""},
					{112 << 10, 32 << 10, 0, "data 32K", ""}, // too short a run of zeroes
					{2 << 20, 2 << 20, 0, "hole 2048K", ""},
					{0, 0, 0, "none", ""},
				} {
					want := k.want
					if blocks && k.worker != "" {
						want = k.worker
					}
					if got := shape(k.off, k.n, k.flags); got != want {
						t.Errorf("%v: %d at %d, flags %#x: got %q, want %q", s, k.n, k.off, k.flags, got, want)
					}
				}
			}
		})
	}
}

func TestBlockStatus(t *testing.T) {
	dev := newMemory(1 << 20)
	_, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev}, export.Export{Name: "dense", Dev: dense{newMemory(1 << 20)}})
	w := enter(t, dial(), "d", nbdproto.Simple, false)
	do(t, w, nbdproto.CmdWrite, 0, 64<<10, 8192, fill(8192, 1), 0)
	do(t, w, nbdproto.CmdWrite, 0, 512<<10, 4096, fill(4096, 1), 0)
	const hole = nbdproto.StateHole | nbdproto.StateZero
	type list = []nbdproto.StatusExtent
	for _, s := range []nbdproto.Style{nbdproto.Structured, nbdproto.Extended} {
		for _, k := range []struct {
			export string
			off, n uint64
			flags  uint16
			want   list
		}{
			{"d", 0, 1 << 20, 0, list{{Len: 64 << 10, Flags: hole}, {Len: 8192, Flags: 0}, {Len: 440 << 10, Flags: hole}, {Len: 4096, Flags: 0}, {Len: 508 << 10, Flags: hole}}},
			{"d", 0, 1 << 20, nbdproto.CmdFlagReqOne, list{{Len: 64 << 10, Flags: hole}}},
			{"d", 1000, 512, nbdproto.CmdFlagReqOne, list{{Len: 512, Flags: hole}}},
			{"d", 64<<10 - 512, 1024, 0, list{{Len: 512, Flags: hole}, {Len: 512, Flags: 0}}},
			{"dense", 4096, 1<<20 - 4096, 0, list{{Len: 1<<20 - 4096, Flags: 0}}},
		} {
			c := enter(t, dial(), k.export, s, true)
			a := do(t, c, nbdproto.CmdBlockStatus, k.flags, k.off, k.n, nil, 0)
			typ := nbdproto.ReplyBlockStatus
			if s == nbdproto.Extended {
				typ = nbdproto.ReplyBlockStatusExt
			}
			if len(a.Chunks) != 1 || a.Heads[0].Type != typ || a.Chunks[0].Context != nbdproto.AllocationID || fmt.Sprint(a.Chunks[0].Extents) != fmt.Sprint(k.want) {
				t.Errorf("%v %+v: got %+v", s, k, a.Chunks)
			}
			do(t, c, nbdproto.CmdBlockStatus, 0, 0, 0, nil, nbdproto.EINVAL)
			do(t, c, nbdproto.CmdBlockStatus, 0, 1<<20-512, 1024, nil, nbdproto.EINVAL)
		}
	}
}

// TestStatusOfHugeDevice: lengths beyond 32 bits are whole in extended replies
// and cut to fit compact ones.
func TestStatusOfHugeDevice(t *testing.T) {
	dev := newMemory(0)
	dev.info.Size = 1 << 40
	_, dial := start(t, Config{}, export.Export{Name: "d", Dev: dense{dev}})
	c := enter(t, dial(), "d", nbdproto.Extended, true)
	a := do(t, c, nbdproto.CmdBlockStatus, 0, 0, 1<<40, nil, 0)
	if fmt.Sprint(a.Chunks[0].Extents) != "[{1099511627776 0}]" {
		t.Errorf("extended: %v", a.Chunks)
	}
	l := statusList{end: 6 << 30, align: 512, most: maxExtents, longest: nbdproto.MaxCompactExtent}
	l.add(0, 6<<30, nbdproto.StateHole)
	if want := []nbdproto.StatusExtent{{Len: nbdproto.MaxCompactExtent, Flags: 1}, {Len: 6<<30 - nbdproto.MaxCompactExtent, Flags: 1}}; fmt.Sprint(l.list) != fmt.Sprint(want) {
		t.Errorf("compact: %v", l.list)
	}
}

// TestStatusKeepsToTheBlockSize: blocks of mixed content count as data.
func TestStatusKeepsToTheBlockSize(t *testing.T) {
	type in struct {
		to    int64
		flags uint32
	}
	for _, k := range []struct {
		off, end int64
		in       []in
		want     string
	}{
		{0, 16384, []in{{4096, 3}, {8192, 0}, {16384, 3}}, "[{4096 3} {4096 0} {8192 3}]"},
		{0, 16384, []in{{5000, 3}, {9000, 0}, {16384, 3}}, "[{4096 3} {8192 0} {4096 3}]"},
		{0, 16384, []in{{5000, 3}, {16384, 1}}, "[{4096 3} {4096 0} {8192 1}]"},
		{0, 16384, []in{{5000, 3}, {6000, 1}, {16384, 3}}, "[{4096 3} {4096 0} {8192 3}]"},
		{512, 6000, []in{{6000, 3}}, "[{5488 3}]"},
	} {
		l := statusList{off: k.off, end: k.end, align: 4096, most: 100, longest: 1 << 40}
		from := k.off
		for _, e := range k.in {
			if !l.add(from, e.to, e.flags) {
				break
			}
			from = e.to
		}
		l.append(l.end, 0)
		if got := fmt.Sprint(l.list); got != k.want {
			t.Errorf("%+v: got %v", k, got)
		}
	}
}
