package target_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/test/fixtures"
)

// readLog lists the entries of a log, and replays it onto a disk of n bytes.
// It reads the format by the kernel's description alone.
func readLog(t *testing.T, log []byte, n int64) (entries []string, disk []byte) {
	t.Helper()
	u64 := binary.LittleEndian.Uint64
	if u64(log) != 0x6a736677736872 || u64(log[8:]) != 1 {
		t.Fatalf("no log: magic %#x, version %d", u64(log), u64(log[8:]))
	}
	disk = make([]byte, n)
	size := uint64(binary.LittleEndian.Uint32(log[24:]))
	at := size
	for range u64(log[16:]) {
		e := log[at : at+size]
		sector, count, flags, length := u64(e), u64(e[8:]), u64(e[16:]), u64(e[24:])
		at += size
		var names []string
		for i, name := range []string{"flush", "fua", "discard", "mark"} {
			if flags&(1<<i) != 0 {
				names = append(names, name)
			}
		}
		text := fmt.Sprintf("%d+%d %s%s", sector, count, strings.Join(names, "|"), e[32:32+length])
		entries = append(entries, strings.TrimSpace(text))
		if flags&4 == 0 {
			copy(disk[sector*size:], log[at:at+count*size])
			at += count * size
		}
	}
	if rest := bytes.TrimLeft(log[at:], "\x00"); len(rest) > 0 {
		t.Error("the log goes on after the last entry that the super block counts")
	}
	return entries, disk
}

// remove ends the device that h is the only handle of.
func remove(t *testing.T, w *dmtest.World, name string, h *dm.Handle) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Device(name).Remove(t.Context(), dm.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestLogOfTheKernel: its log replays to its disk, and ours of the same
// history is the same, to the byte.
func TestLogOfTheKernel(t *testing.T) {
	f := fixtures.Log(t)
	theirs, disk := f.Disks["log"].Bytes(t), f.Disks["data"].Bytes(t)
	entries, replayed := readLog(t, theirs, int64(len(disk)))
	want := []string{"0+8", "8+8", "0+0 flush", "0+0 markfirst", "128+8", "0+0 flush", "0+0 markdm-log-writes-end"}
	if fmt.Sprint(entries) != fmt.Sprint(want) {
		t.Errorf("the kernel's log: %q", entries)
	}
	if !bytes.Equal(replayed, disk) {
		t.Errorf("replayed, the kernel's log differs from its disk at %d", firstDiff(replayed, disk))
	}

	w := dmtest.New(t)
	data, log := w.Disk("data", int64(len(disk)), 0), w.Disk("log", int64(len(theirs)), 0)
	dev := w.Map("d", "0 2048 log-writes data log")
	flush := func() {
		if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
			t.Fatal(err)
		}
	}
	first, second := f.Regions[0].Plain(), f.Regions[1].Plain()
	dmtest.Write(t, dev, f.Regions[0].Offset, first[:4096])
	dmtest.Write(t, dev, f.Regions[0].Offset+4096, first[4096:])
	flush()
	say(t, dev, 0, "mark first")
	dmtest.Write(t, dev, f.Regions[1].Offset, second)
	flush()
	if got := status(dev); got != f.Status {
		t.Errorf("status %q, want %q", got, f.Status)
	}
	if got, want := strings.TrimSpace(dev.TableText(false, dm.StatusTable)), "0 2048 log-writes data log"; got != want {
		t.Errorf("table %q", got)
	}
	remove(t, w, "d", dev)
	if !bytes.Equal(log.Bytes(), theirs) {
		t.Errorf("our log differs from the kernel's at %d", firstDiff(log.Bytes(), theirs))
	}
	if !bytes.Equal(data.Bytes(), disk) {
		t.Errorf("our disk differs from the kernel's at %d", firstDiff(data.Bytes(), disk))
	}
}

// TestLogHasWhatIsDurable: writes wait for a flush that began after they were
// complete, and none that fails; FUA and marks do not wait; discards have no
// data, zeroes have.
func TestLogHasWhatIsDurable(t *testing.T) {
	w := dmtest.New(t)
	data, log := dmtest.NewRAM(1<<20), w.Disk("log", 1<<20, 0)
	var fail error
	flushing, goOn := make(chan struct{}, 1), make(chan struct{}, 1)
	goOn <- struct{}{}
	data.Before = func(_ context.Context, r block.Request) error {
		if r.Op == block.OpFlush {
			flushing <- struct{}{}
			<-goOn
			return fail
		}
		return nil
	}
	w.Leaf("data", data, nil)
	dev := w.Map("d", "0 2048 log-writes data log")
	do := func(op block.Op, f block.Flags, sector, n int64) error {
		r := block.Request{Op: op, Flags: f, Off: sector * 512, Len: n * 512}
		if op.HasData() {
			r.Data = block.Bytes(bytes.Repeat([]byte{byte(sector)}, int(n)*512))
		}
		return dev.Do(t.Context(), r)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(want ...string) {
		t.Helper()
		if got, _ := readLog(t, log.Bytes(), 1<<20); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("log %q, want %q", got, want)
		}
	}
	must(do(block.OpWrite, 0, 1, 1))
	must(do(block.OpWriteZeroes, 0, 2, 2))
	must(do(block.OpDiscard, 0, 4, 4))
	if log.Count(block.OpWrite) != 0 {
		t.Error("the log was written before anything was durable")
	}
	must(do(block.OpWrite, block.FUA, 9, 1))
	check("9+1 fua")
	fail = block.ErrIO
	if err := do(block.OpFlush, 0, 0, 0); !errors.Is(err, block.ErrIO) {
		t.Errorf("flush: %v", err)
	}
	<-flushing
	fail = nil
	check("9+1 fua")
	say(t, dev, 0, "MARK here")
	check("9+1 fua", "0+0 markhere")
	if err := do(block.OpFlush, block.NoWait, 0, 0); err != block.ErrWouldBlock {
		t.Errorf("flush with NoWait: %v", err)
	}
	if err := do(block.OpWrite, block.FUA|block.NoWait, 9, 1); err != block.ErrWouldBlock {
		t.Errorf("FUA with NoWait: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- do(block.OpFlush, 0, 0, 0) }()
	<-flushing // and now a write that this flush does not cover
	must(do(block.OpWrite, 0, 20, 1))
	goOn <- struct{}{}
	must(<-done)
	check("9+1 fua", "0+0 markhere", "1+1", "2+2", "4+4 discard", "0+0 flush")
	remove(t, w, "d", dev)
	check("9+1 fua", "0+0 markhere", "1+1", "2+2", "4+4 discard", "0+0 flush", "20+1", "0+0 markdm-log-writes-end")
	if _, disk := readLog(t, log.Bytes(), 1<<20); !bytes.Equal(disk, data.Bytes()) {
		t.Error("replayed, the log differs from the disk")
	}
}

// TestLogThatEnds: full, or failing, it is no failure of the device.
func TestLogThatEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int64
		fails  block.Op // of the log; OpRead: none
		status string
		counts uint64 // entries in the super block
	}{
		{"full", 13 * 512, block.OpRead, "0 2048 log-writes data log 2 10 logging_disabled", 2},
		{"full but for a flush", 21 * 512, block.OpRead, "0 2048 log-writes data log 3 19 logging_disabled", 3},
		{"full after a flush", 22 * 512, block.OpRead, "0 2048 log-writes data log 4 20 logging_disabled", 4},
		{"log fails", 1 << 20, block.OpWrite, "0 2048 log-writes data log 0 0 logging_disabled", 0},
		{"flush of the log fails", 1 << 20, block.OpFlush, "0 2048 log-writes data log 4 20 logging_disabled", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := dmtest.New(t)
			data, log := w.Disk("data", 1<<20, 0), dmtest.NewRAM(c.size)
			log.Before = func(_ context.Context, r block.Request) error {
				if c.fails != block.OpRead && r.Op == c.fails {
					return block.ErrIO
				}
				return nil
			}
			w.Leaf("log", log, nil)
			dev := w.Map("d", "0 2048 log-writes data log")
			for round := range 2 {
				for i, n := range []int{8, 0, 8} { // 9, 1 and 9 sectors of the log, and 1 for the flush
					r := block.Request{Op: block.OpWrite, Off: int64(i) * 4096, Len: int64(n) * 512, Data: block.Bytes(bytes.Repeat([]byte{6}, n*512))}
					if n == 0 {
						r = block.Request{Op: block.OpDiscard, Len: 512}
					}
					if err := dev.Do(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			if got := "0 2048 log-writes data log" + strings.TrimPrefix(status(dev), "0 2048 log-writes"); got != c.status {
				t.Errorf("status %q, want %q", got, c.status)
			}
			if got := binary.LittleEndian.Uint64(log.Bytes()[16:]); got != c.counts {
				t.Errorf("the super block counts %d entries, want %d", got, c.counts)
			}
			if _, err := dev.Message(t.Context(), 0, []string{"mark", "x"}); err == nil || !strings.Contains(err.Error(), "logging is over") {
				t.Errorf("mark: %v", err)
			}
			if b := data.Bytes(); b[2*4096] != 6 || data.Count(block.OpFlush) != 2 {
				t.Error("the device did not go on")
			}
		})
	}
}

// TestLogOfATableThatChangedNothing is left alone.
func TestLogOfATableThatChangedNothing(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("data", 1<<20, 0)
	log := w.Disk("log", 1<<20, 0)
	old := bytes.Repeat([]byte{4}, 4096)
	log.Set(old)
	dev := w.Map("d", "0 2048 log-writes data log")
	dmtest.Read(t, dev, 0, 512)
	w.Reload("d", "0 2048 log-writes data log")
	remove(t, w, "d", dev)
	if !bytes.Equal(log.Bytes()[:4096], old) {
		t.Error("the log of an earlier table is gone")
	}
}

// TestLogKeepsOutPlaintext: with a key, what is logged is what the device
// holds, whether or not it has an engine; and the data that is logged is that
// which was written, whoever else changes it.
func TestLogKeepsOutPlaintext(t *testing.T) {
	for _, slots := range []int{0, 2} {
		w := dmtest.New(t)
		data, log := w.Disk("data", 1<<20, slots), w.Disk("log", 2<<20, slots)
		checkContexts(t, w, "0 2048 log-writes data log", "0 2048 linear data 0", false)
		dev := w.Handle("written")
		if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
			t.Fatal(err)
		}
		if _, disk := readLog(t, log.Bytes(), 1<<20); !bytes.Equal(disk, data.Bytes()) {
			t.Errorf("%d slots: replayed, the log differs from the disk at %d", slots, firstDiff(disk, data.Bytes()))
		}
	}
	w := dmtest.New(t)
	shared := bytes.Repeat([]byte{1}, 4096)
	data, log := dmtest.NewRAM(1<<20), w.Disk("log", 2<<20, 0)
	data.Before = func(context.Context, block.Request) error {
		shared[100]++ // a guest writes to its memory
		return nil
	}
	w.Leaf("data", data, nil)
	dev := w.Map("d", "0 2048 log-writes data log")
	r := request(block.OpWrite, shared)
	r.Flags = block.Shared | block.FUA
	if err := dev.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, disk := readLog(t, log.Bytes(), 1<<20); !bytes.Equal(disk, data.Bytes()) {
		t.Error("shared memory: what is logged is not what was written")
	}
	var profile blkcrypto.Profile = dev.Info().Crypto
	if !profile.Empty() {
		t.Error("log-writes passes contexts")
	}
}

// TestLogWritesRefuses what cannot be, and cuts marks to what a sector holds.
func TestLogWritesRefuses(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	log := w.Disk("log", 1<<20, 0)
	big, tiny := dmtest.NewRAM(1<<20), dmtest.NewRAM(512)
	big.SetInfo(func(i *block.Info) { i.LogicalBlock, i.PhysicalBlock = 4096, 4096 })
	w.Leaf("big", big, nil)
	w.Leaf("tiny", tiny, nil)
	for table, want := range map[string]string{
		"0 2048 log-writes a":       "argument 2 (log device): missing",
		"0 2048 log-writes a a":     `log device "a" is the device itself`,
		"0 2048 log-writes a big":   `log device "big" has blocks of 4096 bytes, device "a" of 512`,
		"0 2048 log-writes a tiny":  `log device "tiny" is too small`,
		"0 2049 log-writes a log":   `device "a" is too small`,
		"0 2048 log-writes a log 0": "surplus argument 3",
	} {
		if _, err := w.Parse(table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", table, err, want)
		}
	}
	dev := w.Map("d", "0 8 zero\n8 2040 log-writes a log")
	for text, want := range map[string]string{"mark": "mark takes one word, not 0", "mark a b": "mark takes one word, not 2", "marks a": `no message "marks"`} {
		if _, err := dev.Message(t.Context(), 8, strings.Fields(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	say(t, dev, 8, "mark "+strings.Repeat("y", 600))
	dmtest.Write(t, dev, 8*512, bytes.Repeat([]byte{3}, 512)) // sectors are the table's, as in the kernel
	if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
		t.Fatal(err)
	}
	want := []string{"0+0 mark" + strings.Repeat("y", 512-32-1), "8+1", "0+0 flush"}
	if got, disk := readLog(t, log.Bytes(), 1<<20); fmt.Sprint(got) != fmt.Sprint(want) || disk[8*512] != 3 {
		t.Errorf("log %q", got)
	}
}
