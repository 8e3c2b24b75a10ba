package target_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// say sends a message to the target at a sector.
func say(t *testing.T, dev *dm.Handle, sector int64, text string) string {
	t.Helper()
	answer, err := dev.Message(t.Context(), sector, strings.Fields(text))
	if err != nil {
		t.Errorf("message %q: %v", text, err)
	}
	return answer
}

// TestDustMessages: each message, its answer in the kernel's words, and what
// it refuses.
func TestDustMessages(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0) // 256 blocks of 4096
	dev := w.Map("d", "0 8 linear a 0\n8 1024 dust a 8 4096")
	for _, c := range []struct{ message, answer, refused string }{
		{message: "countbadblocks", answer: "countbadblocks: 0 badblock(s) found"},
		{message: "listbadblocks", answer: "No blocks in badblocklist"},
		{message: "clearbadblocks", answer: "dust_clear_badblocks: no badblocks found"},
		{message: "addbadblock 60"},
		{message: "ADDBADBLOCK 7 3"},
		{message: "addbadblock 256"}, // the kernel lets one pass
		{message: "addbadblock 60", refused: "dust: addbadblock: block 60 already in badblocklist"},
		{message: "addbadblock 257", refused: `addbadblock: block "257" is not from 0 to 256`},
		{message: "addbadblock -1", refused: `block "-1" is not from 0`},
		{message: "addbadblock 1 256", refused: `number of failing writes "256" is not from 0 to 255`},
		{message: "addbadblock 1x", refused: `block "1x"`},
		{message: "addbadblock", refused: "addbadblock takes a block"},
		{message: "addbadblock 1 2 3", refused: "addbadblock takes a block"},
		{message: "queryblock 60", answer: "dust_query_block: block 60 found in badblocklist"},
		{message: "queryblock 61", answer: "dust_query_block: block 61 not found in badblocklist"},
		{message: "queryblock 61 1", refused: "queryblock takes a block"},
		{message: "countbadblocks", answer: "countbadblocks: 3 badblock(s) found"},
		{message: "listbadblocks", answer: "7\n60\n256\n"},
		{message: "removebadblock 60"},
		{message: "removebadblock 60", refused: "block 60 not found in badblocklist"},
		{message: "enable now", refused: "enable takes no arguments"},
		{message: "clearbadblocks", answer: "dust_clear_badblocks: badblocks cleared"},
		{message: "countbadblocks", answer: "countbadblocks: 0 badblock(s) found"},
		{message: "badblocks", refused: `no message "badblocks" (there are: addbadblock, `},
	} {
		got, err := dev.Message(t.Context(), 1031, strings.Fields(c.message))
		if got != c.answer || (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%q: %q, %v; want %q, %q", c.message, got, err, c.answer, c.refused)
		}
	}
	for _, c := range []struct {
		sector  int64
		message string
		want    string
	}{
		{0, "enable", "table row 1: linear: takes no messages"},
		{1032, "enable", `device "d" has no sector 1032`},
		{-1, "enable", `device "d" has no sector -1`},
		{8, "", "a message needs a word"},
	} {
		if _, err := dev.Message(t.Context(), c.sector, strings.Fields(c.message)); err == nil || err.Error() != c.want {
			t.Errorf("sector %d: %v, want %q", c.sector, err, c.want)
		}
	}
	for _, c := range []struct{ message, want string }{
		{"enable", "fail_read_on_bad_block verbose"}, {"quiet", "fail_read_on_bad_block quiet"},
		{"quiet", "fail_read_on_bad_block verbose"}, {"disable", "bypass verbose"},
	} {
		if answer := say(t, dev, 8, c.message); answer != "" {
			t.Errorf("%s answers %q", c.message, answer)
		}
		if got := status(dev); !strings.HasSuffix(got, "dust a "+c.want) {
			t.Errorf("after %s: %q, want %s", c.message, got, c.want)
		}
	}
}

// TestDustFailsAndHeals: reads of bad blocks fail once enabled; a write heals
// those that it covers, when it has failed as often as was asked for.
func TestDustFailsAndHeals(t *testing.T) {
	w := dmtest.New(t)
	a := w.Disk("a", 1<<20, 0)
	dev := w.Map("d", "0 1024 dust a 16 4096") // the row begins in block 2
	say(t, dev, 0, "addbadblock 4")
	say(t, dev, 0, "addbadblock 6 2")
	const at = 4*4096 - 16*512 // block 4 in the row
	do := func(op block.Op, off, n int64) error {
		r := block.Request{Op: op, Off: off, Len: n}
		if op.HasData() {
			r.Data = block.Bytes(bytes.Repeat([]byte{5}, int(n)))
		}
		return dev.Do(t.Context(), r)
	}
	if err := do(block.OpRead, 0, 1024*512); err != nil {
		t.Errorf("a read before it is enabled: %v", err)
	}
	if err := do(block.OpWrite, at, 4096); err != nil || say(t, dev, 0, "countbadblocks") != "countbadblocks: 2 badblock(s) found" {
		t.Errorf("a write before it is enabled heals: %v", err)
	}
	say(t, dev, 0, "enable")
	for i, c := range []struct {
		op     block.Op
		off, n int64
		fails  bool
		left   string
	}{
		{block.OpRead, 0, at, false, "4\n6\n"},
		{block.OpRead, at - 512, 1024, true, "4\n6\n"},
		{block.OpRead, at + 4096 - 512, 512, true, "4\n6\n"},
		{block.OpRead, at + 4096, 4096, false, "4\n6\n"},
		{block.OpRead, 0, 1024 * 512, true, "4\n6\n"},
		{block.OpFlush, 0, 0, false, "4\n6\n"},
		{block.OpWrite, at + 4096, 2 * 4096, true, "4\n6\n"}, // 1 left for block 6
		{block.OpWrite, at + 512, 512, false, "6\n"},
		{block.OpRead, at, 4096, false, "6\n"},
		{block.OpWriteZeroes, at + 2*4096, 512, true, "6\n"}, // 0 left
		{block.OpDiscard, at + 2*4096, 512, false, "No blocks in badblocklist"},
		{block.OpRead, 0, 1024 * 512, false, "No blocks in badblocklist"},
	} {
		before := a.Bytes()
		err := do(c.op, c.off, c.n)
		if (err != nil) != c.fails || err != nil && !errors.Is(err, block.ErrIO) {
			t.Errorf("step %d: %v of %d at %d: %v, want it to fail: %v", i, c.op, c.n, c.off, err, c.fails)
		}
		if err != nil && !bytes.Equal(a.Bytes(), before) {
			t.Errorf("step %d: what failed changed the disk", i)
		}
		if got := say(t, dev, 0, "listbadblocks"); got != c.left {
			t.Errorf("step %d: bad blocks %q, want %q", i, got, c.left)
		}
	}
	say(t, dev, 0, "addbadblock 4")
	say(t, dev, 0, "disable")
	if err := do(block.OpRead, at, 4096); err != nil {
		t.Errorf("disabled: %v", err)
	}
}

// TestDustPassesContexts, and counts a request's blocks whoever encrypts it.
func TestDustPassesContexts(t *testing.T) {
	for _, slots := range []int{0, 2} {
		w := dmtest.New(t)
		w.Disk("a", 1<<20, slots)
		checkContexts(t, w, "0 1024 dust a 8 512", "0 1024 linear a 8", slots > 0)
	}
}
