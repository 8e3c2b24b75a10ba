package target_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// TestTargetsTellWhereRequestsGo: the place that a target tells is the one
// that a request for that sector changes or reads, and so is a failure.
func TestTargetsTellWhereRequestsGo(t *testing.T) {
	for _, c := range []struct {
		table    string
		messages []string
		sector   int64
		write    bool
		to, says string // to: "" for nowhere
		fails    bool
	}{
		{table: "0 64 flakey a 3 1 0", sector: 5, to: "a 8", says: "up"},
		{table: "0 64 flakey a 3 0 1 1 drop_writes", sector: 5, to: "a 8", says: "down: drop_writes"},
		{table: "0 64 flakey a 3 0 1 1 drop_writes", sector: 5, write: true, says: "down: drop_writes"},
		{table: "0 64 flakey a 3 0 1", sector: 5, fails: true, says: "down: error_reads error_writes"},
		{table: "0 64 flakey a 3 0 1 1 error_writes", sector: 5, write: true, fails: true, says: "down: error_writes"},
		{table: "0 64 delay a 3 1 b 4 2 b 5 3", sector: 5, to: "a 8", says: "reads wait 1ms, writes 2ms, flushes 3ms"},
		{table: "0 64 delay a 3 1 b 4 2 b 5 3", sector: 5, write: true, to: "b 9", says: "reads wait 1ms"},
		{table: "0 64 dust a 8 1024", sector: 5, to: "a 13", says: "block 6"},
		{table: "0 64 dust a 8 1024", messages: []string{"addbadblock 6"}, sector: 5, to: "a 13", says: "block 6, bad, which matters once enabled"},
		{table: "0 64 dust a 8 1024", messages: []string{"addbadblock 6 2", "enable"}, sector: 5, fails: true, says: "block 6, bad; writes to it fail 2 times more"},
		{table: "0 64 dust a 8 1024", messages: []string{"addbadblock 6 2", "enable"}, sector: 5, write: true, fails: true, says: "block 6, bad"},
		{table: "0 64 dust a 8 1024", messages: []string{"addbadblock 6", "enable"}, sector: 5, write: true, to: "a 13", says: "block 6, bad"},
		{table: "0 64 unstriped 3 8 1 a 16", sector: 17, to: "a 73", says: "chunk 2 of stripe 1, of 8 sectors, is chunk 7 of the device"},
		{table: "0 64 unstriped 1 8 1 a 16", sector: 17, to: "a 41", says: "chunk 2 of stripe 1"},
		{table: "0 64 switch 2 8 0 a 1 b 2", sector: 9, write: true, to: "b 11", says: "region 1, of 8 sectors, is on path 1 of 2"},
		{table: "0 64 switch 2 8 0 a 1 b 2", messages: []string{"set_region_mappings 1:0"}, sector: 9, to: "a 10", says: "on path 0 of 2"},
		{table: "0 64 mirror core 2 8 nosync 2 b 1 a 2", sector: 9, to: "b 10", says: "region 2 of 8, of 8 sectors, is in sync: reads are for leg 1, writes for all 2"},
		{table: "0 64 snapshot-origin a", sector: 9, write: true, to: "a 9", says: "there is no snapshot"},
		{table: "0 3 zero\n3 64 snapshot a b P 8", sector: 20, to: "a 20", says: "chunk 2, of 8 sectors, is that of the origin; a write copies it first"},
		{table: "0 64 log-writes a b", sector: 9, write: true, to: "a 9", says: `changes are logged to "b"`},
	} {
		t.Run(fmt.Sprint(c.table, c.messages, c.write), func(t *testing.T) {
			w := dmtest.New(t)
			disks := map[string]*dmtest.RAM{"a": w.Disk("a", 1<<20, 0), "b": w.Disk("b", 1<<20, 0)}
			dev := w.Map("d", c.table)
			for _, m := range c.messages {
				say(t, dev, 0, m)
			}
			for name, d := range disks {
				content := make([]byte, 1<<20)
				for s := range 2048 {
					copy(content[s*512:], fmt.Sprintln(name, s))
				}
				d.Set(content)
			}
			x, err := dev.Explain(dm.Question{Sector: c.sector, Write: c.write})
			if err != nil {
				t.Fatal(err)
			}
			s := x.Steps[0]
			var to string
			if len(s.To) > 0 {
				name := strings.Trim(strings.TrimPrefix(s.To[0].Device, "device "), `"`)
				to = fmt.Sprint(name, " ", s.To[0].Sector)
			}
			if to != c.to || !strings.Contains(s.Says, c.says) || errors.Is(x.Fails, block.ErrIO) != c.fails || s.Unknown {
				t.Errorf("to %q, says %q, fails %v; want %q, %q, %v", to, s.Says, x.Fails, c.to, c.says, c.fails)
			}

			data := make([]byte, 512)
			copy(data, "written")
			r := block.Request{Op: block.OpRead, Off: c.sector * 512, Len: 512, Data: block.Bytes(data)}
			if c.write {
				r.Op = block.OpWrite
			}
			err = dev.Do(t.Context(), r)
			switch {
			case c.fails || err != nil:
				if !errors.Is(err, block.ErrIO) || !c.fails {
					t.Errorf("the request: %v", err)
				}
			case !c.write:
				if got, _, _ := strings.Cut(string(data), "\n"); got != c.to {
					t.Errorf("the request read %q", got)
				}
			default:
				for name, d := range disks {
					at := strings.Index(string(d.Bytes()), "written")
					if here := strings.HasPrefix(c.to, name); here != (at >= 0) || here && fmt.Sprint(name, " ", at/512) != c.to {
						t.Errorf("the request wrote %s at sector %d", name, at/512)
					}
				}
			}
		})
	}
}
