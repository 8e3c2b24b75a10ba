package target_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// TestMirrorCopiesAtABoundedRate, in the background, without a key, and only while
// its device is live: not before, not while suspended, and not after.
func TestMirrorCopiesAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 40 << 20
		w := dmtest.New(t)
		a, b := w.Disk("a", size, 0), w.Disk("b", size, 0)
		a.Set(bytes.Repeat([]byte("x"), size))
		loaded := w.Table("0 81920 mirror core 1 2048 2 a 0 b 0")
		synctest.Wait()
		if n := a.Count(block.OpRead); n != 0 {
			t.Errorf("%d reads before the table is live", n)
		}
		if err := loaded.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		dev := w.Map("m", "0 81920 mirror core 1 2048 2 a 0 b 0")
		time.Sleep(51 * time.Millisecond)
		if got := firstStatus(dev); !strings.HasSuffix(got, "11/40 1 AA 1 core") && !strings.HasSuffix(got, "10/40 1 AA 1 core") {
			t.Errorf("after 51 ms: %s", got)
		}
		if err := dev.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		held := firstStatus(dev)
		n := a.Count(block.OpRead) + b.Count(block.OpWrite)
		time.Sleep(time.Hour)
		if now := a.Count(block.OpRead) + b.Count(block.OpWrite); now != n || firstStatus(dev) != held {
			t.Errorf("%d requests while suspended, status %s, was %s", now-n, firstStatus(dev), held)
		}
		if err := dev.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		untilStatus(t, dev, "40/40 1 AA 1 core")
		if took := time.Since(start) - time.Hour; took < 190*time.Millisecond || took > 210*time.Millisecond {
			t.Errorf("40 MiB took %v, want 0.2 s less the suspension", took)
		}
		n = a.Count(block.OpRead)
		time.Sleep(time.Hour)
		if now := a.Count(block.OpRead); now != n {
			t.Errorf("%d reads of what is in sync", now-n)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Error("the legs differ")
		}
		remove(t, w, "m", dev)
		synctest.Wait() // and the bubble ends with nothing left in it
	})
}

// TestMirrorReadOnly reads from what the log says is in sync, and changes nothing.
func TestMirrorReadOnly(t *testing.T) {
	w := dmtest.New(t)
	a, b, log := newFaulty(1<<20), newFaulty(1<<20), w.Disk("log", 1<<20, 0)
	w.Leaf("a", a, nil)
	w.Leaf("b", b, nil)
	a.Set(bytes.Repeat([]byte("a"), 1<<20))
	tab, err := dm.Parse(t.Context(), "0 2048 mirror disk 2 log 64 2 a 0 b 0", w, dm.ParseOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	m := dm.New("m", dm.Options{})
	if err := m.Load(t.Context(), tab); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	dev, err := m.Open("the test")
	if err != nil {
		t.Fatal(err)
	}
	if got := dmtest.Read(t, dev, 4096, 512); got[0] != 'a' {
		t.Errorf("read %q from a leg that has nothing", got[:8])
	}
	a.fail(failingOps(block.OpRead))
	r := request(block.OpRead, make([]byte, 512))
	if err := dev.Do(t.Context(), r); !errors.Is(err, block.ErrIO) {
		t.Errorf("read of what is on no other leg: %v", err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), dm.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, d := range []*dmtest.RAM{a.RAM, b.RAM, log} {
		if n := d.Count(block.OpWrite) + d.Count(block.OpWriteZeroes); n != 0 {
			t.Errorf("disk %d: %d writes", i, n)
		}
	}
}

// TestMirrorReadAllocatesNothing while all is in sync.
func TestMirrorReadAllocatesNothing(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	w.Disk("b", 1<<20, 0)
	dev := w.Map("m", "0 2048 mirror core 2 64 nosync 2 a 0 b 0")
	r := request(block.OpRead, make([]byte, 4096))
	if n := testing.AllocsPerRun(100, func() { _ = dev.Do(context.Background(), r) }); n != 0 {
		t.Errorf("%v allocations a read, want 0", n)
	}
}
