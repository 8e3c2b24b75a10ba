package target_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// cleanRegions reads a log by the kernel's description alone.
func cleanRegions(t *testing.T, log []byte) (clean []int, n int) {
	t.Helper()
	u32 := binary.LittleEndian.Uint32
	if u32(log) != 0x4D695272 || u32(log[4:]) != 2 {
		t.Fatalf("no log: magic %#x, version %d", u32(log), u32(log[4:]))
	}
	n = int(binary.LittleEndian.Uint64(log[8:]))
	for i := range (n + 31) / 32 * 32 {
		if log[1024+i/8]>>(i%8)&1 != 0 {
			if i >= n {
				t.Errorf("bit %d is set, of %d regions", i, n)
			}
			clean = append(clean, i)
		}
	}
	return clean, n
}

// mirrorLog is a log of the kernel's with those regions clean.
func mirrorLog(version uint32, n int, clean ...int) []byte {
	log := make([]byte, 2048)
	binary.LittleEndian.PutUint32(log, 0x4D695272)
	binary.LittleEndian.PutUint32(log[4:], version)
	binary.LittleEndian.PutUint64(log[8:], uint64(n))
	for _, i := range clean {
		log[1024+i/8] |= 1 << (i % 8)
	}
	return log
}

func count(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// TestMirrorTakesUpALog that the kernel has left, also of a mirror that was larger
// or smaller, or of none: exactly what is not clean is copied.
func TestMirrorTakesUpALog(t *testing.T) {
	for _, c := range []struct {
		name, args string
		log        []byte
		copied     []int
		status     string
	}{
		{"of the kernel", "disk 2 log 8", mirrorLog(2, 20, 0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18), []int{3, 9, 19}, "A"},
		{"of an old kernel", "disk 2 log 8", mirrorLog(1, 20, count(19)...), []int{19}, "A"},
		{"of a smaller mirror", "disk 2 log 8", mirrorLog(2, 8, count(32)...), count(20)[8:], "A"},
		{"of a larger mirror", "disk 2 log 8", mirrorLog(2, 30, count(29)...), nil, "A"},
		{"of a larger number than there is", "disk 2 log 8", append(mirrorLog(2, 30, count(29)...)[:8], bytes.Repeat([]byte{0xff}, 1040)...), nil, "A"},
		{"none", "disk 2 log 8", make([]byte, 2048), count(20), "A"},
		{"something else", "disk 2 log 8", bytes.Repeat([]byte("data"), 512), count(20), "A"},
		{"of another version", "disk 2 log 8", mirrorLog(3, 20, count(20)...), count(20), "D"},
		{"nosync", "disk 3 log 8 nosync", mirrorLog(2, 20, 5), nil, "A"},
		{"sync", "disk 3 log 8 sync", mirrorLog(2, 20, count(20)...), count(20), "A"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := dmtest.New(t)
				a, b, log := w.Disk("a", 20*4096, 0), w.Disk("b", 20*4096, 0), w.Disk("log", 4096, 0)
				log.Set(c.log)
				want := bytes.Repeat([]byte("b"), 20*4096)
				b.Set(want)
				a.Set(bytes.Repeat([]byte("a"), 20*4096))
				for _, i := range c.copied {
					copy(want[i*4096:][:4096], bytes.Repeat([]byte("a"), 4096))
				}
				dev := w.Map("m", "0 160 mirror "+c.args+" 2 a 0 b 0")
				synctest.Wait()
				time.Sleep(time.Minute)
				if got := firstStatus(dev); !strings.HasSuffix(got, "20/20 1 AA 3 disk log "+c.status) {
					t.Errorf("status %s", got)
				}
				if !bytes.Equal(b.Bytes(), want) {
					t.Errorf("the second leg is not as it should be, at %d", firstDiff(b.Bytes(), want))
				}
				if clean, n := cleanRegions(t, log.Bytes()); n != 20 || len(clean) != 20 {
					t.Errorf("the log has %d of %d regions clean", len(clean), n)
				}
				remove(t, w, "m", dev)
			})
		})
	}
}

// TestMirrorMarksBeforeItWrites: a region is marked in the log, durably, before a
// leg is written to, and clean again a while after the last write, once the legs
// were flushed; not while it is in use, and not without need.
func TestMirrorMarksBeforeItWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := dmtest.New(t)
		a, b, log := newFaulty(20*4096), newFaulty(20*4096), newFaulty(4096)
		w.Leaf("a", a, nil)
		w.Leaf("b", b, nil)
		w.Leaf("log", log, nil)
		log.Set(mirrorLog(2, 20, count(20)...))
		dev := w.Map("m", "0 160 mirror disk 2 log 8 2 a 0 b 0")
		untilStatus(t, dev, "20/20 1 AA 3 disk log A")
		dirty := func() int {
			clean, n := cleanRegions(t, log.Bytes())
			return n - len(clean)
		}
		var written, flushed int64
		check := func(r block.Request) error {
			if r.Op == block.OpWrite && (dirty() != 2 || log.Count(block.OpFlush) == flushed) {
				t.Errorf("a leg is written to with %d regions marked, %d flushes of the log since", dirty(), log.Count(block.OpFlush)-flushed)
			}
			return nil
		}
		a.fail(check)
		b.fail(check)
		flushed = log.Count(block.OpFlush)
		dmtest.Write(t, dev, 7*4096+2048, make([]byte, 4096))
		written = log.Count(block.OpWrite)
		for range 20 {
			time.Sleep(time.Second)
			dmtest.Write(t, dev, 7*4096+2048, make([]byte, 4096))
		}
		if n := log.Count(block.OpWrite); n != written {
			t.Errorf("%d writes of the log while the regions were in use", n-written)
		}
		legs := a.Count(block.OpFlush)
		time.Sleep(10 * time.Second)
		if dirty() != 0 {
			t.Errorf("%d regions are marked long after the last write", dirty())
		}
		if a.Count(block.OpFlush) == legs {
			t.Error("the log says clean of what the legs were not told to keep")
		}
		reads, writes := log.Count(block.OpRead), log.Count(block.OpWrite)
		time.Sleep(time.Hour)
		if log.Count(block.OpRead) != reads || log.Count(block.OpWrite) != writes {
			t.Error("the log is read or written while nothing happens")
		}
		flushed = log.Count(block.OpFlush)
		dmtest.Write(t, dev, 11*4096+2048, make([]byte, 4096))
		remove(t, w, "m", dev)
		if dirty() != 0 {
			t.Errorf("%d regions are marked after the end", dirty())
		}
	})
}

// TestMirrorLogFailure: without its log a mirror goes on if errors are not handled,
// as in the kernel, and else fails writes; there is an event in either case.
func TestMirrorLogFailure(t *testing.T) {
	for _, c := range []struct {
		fails block.Op
		words string
		ok    bool
		char  string
	}{
		{block.OpWrite, "", true, "D"}, {block.OpFlush, "", true, "F"},
		{block.OpWrite, " 1 handle_errors", false, "D"}, {block.OpFlush, " 2 handle_errors keep_log", false, "F"},
	} {
		w := dmtest.New(t)
		w.Disk("a", 8*4096, 0)
		w.Disk("b", 8*4096, 0)
		log := newFaulty(4096)
		w.Leaf("log", log, nil)
		log.Set(mirrorLog(2, 8, count(8)...))
		dev := w.Map("m", crashTable+c.words)
		untilStatus(t, dev, "8/8 1 AA 3 disk log A")
		log.fail(failingOps(c.fails))
		events := dev.Event()
		err := dev.Do(t.Context(), request(block.OpWrite, make([]byte, 4096)))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, block.ErrIO) {
			t.Errorf("%v of the log fails,%s: %v", c.fails, c.words, err)
		}
		if got := firstStatus(dev); !strings.HasSuffix(got, "AA 3 disk log "+c.char) {
			t.Errorf("status %s", got)
		}
		if dev.Event() == events {
			t.Error("no event")
		}
		log.heal()
		if err := dev.Do(t.Context(), request(block.OpWrite, make([]byte, 4096))); err != nil {
			t.Errorf("a log that works again: %v", err)
		}
		remove(t, w, "m", dev)
	}
}

// TestMirrorLogThatCannotBeRead: if errors are handled nothing is done until it
// can, since nobody knows which leg is right; else all is copied from the first, as
// in the kernel.
func TestMirrorLogThatCannotBeRead(t *testing.T) {
	for _, handle := range []bool{false, true} {
		w := dmtest.New(t)
		a, b, log := w.Disk("a", 8*4096, 0), w.Disk("b", 8*4096, 0), newFaulty(4096)
		a.Set(bytes.Repeat([]byte("a"), 8*4096))
		b.Set(bytes.Repeat([]byte("b"), 8*4096))
		w.Leaf("log", log, nil)
		log.Set(mirrorLog(2, 8, count(8)[1:]...))
		log.fail(failingOps(block.OpRead))
		table := crashTable
		if handle {
			table += " 1 handle_errors"
		}
		dev := w.Map("m", table)
		if !handle {
			untilStatus(t, dev, " 8/8 1 AA 3 disk log D")
			if !bytes.Equal(a.Bytes(), b.Bytes()) {
				t.Error("the legs differ")
			}
			continue
		}
		for _, op := range []block.Op{block.OpRead, block.OpWrite, block.OpFlush} {
			err := dev.Do(t.Context(), request(op, make([]byte, 4096)))
			if !errors.Is(err, block.ErrIO) || !strings.Contains(err.Error(), `log device "log": the log cannot be read`) {
				t.Errorf("%v: %v", op, err)
			}
		}
		if n := a.Count(block.OpWrite) + b.Count(block.OpWrite) + log.Count(block.OpWrite); n != 0 {
			t.Errorf("%d writes", n)
		}
		if got := firstStatus(dev); !strings.HasSuffix(got, " 0/8 1 AA 3 disk log D") {
			t.Errorf("status %s", got)
		}
		log.heal()
		if got := dmtest.Read(t, dev, 0, 512); got[0] != 'a' {
			t.Errorf("read %q", got[:8])
		}
		untilStatusHas(t, dev, " 8/8 1 AA ")
		if got := b.Bytes(); got[0] != 'a' || got[4096] != 'b' {
			t.Errorf("the regions that the log has as clean were copied, or not the other")
		}
	}
}

// TestMirrorReloadKeepsTheLog: the table that takes over is the only one that
// writes the log, whatever the one before it still does at its end.
func TestMirrorReloadKeepsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := dmtest.New(t)
		a, b, log := newFaulty(8*4096), newFaulty(8*4096), w.Disk("log", 4096, 0)
		w.Leaf("a", a, nil)
		w.Leaf("b", b, nil)
		log.Set(mirrorLog(2, 8, count(8)...))
		dev := w.Map("m", crashTable)
		untilStatus(t, dev, "8/8 1 AA 3 disk log A")
		for i := range 5 {
			dmtest.Write(t, dev, 4096, bytes.Repeat([]byte{byte(i)}, 4096))
			if i == 3 {
				b.fail(failingOps(block.OpWrite)) // the new table cannot copy the region that is marked
			}
			w.Reload("m", crashTable)
		}
		b.heal()
		dmtest.Write(t, dev, 3*4096, []byte(fmt.Sprintf("%4096d", 1)))
		if clean, _ := cleanRegions(t, log.Bytes()); fmt.Sprint(clean) != "[0 2 4 5 6 7]" {
			t.Errorf("clean regions %v, want all but 1 and 3", clean)
		}
		if err := dev.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := dev.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		untilStatusHas(t, dev, " 8/8 ")
		if at := firstDiff(a.Bytes(), b.Bytes()); at >= 0 {
			t.Errorf("the legs differ at %d", at)
		}
		remove(t, w, "m", dev)
	})
}
