package target_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"keyway/block"
	"keyway/internal/dmtest"
)

// TestUnstripedUndoesStriped: each stripe of a striped device is what that
// leg of it holds.
func TestUnstripedUndoesStriped(t *testing.T) {
	w := dmtest.New(t)
	legs := []*dmtest.RAM{w.Disk("a", 1<<20, 0), w.Disk("b", 1<<20, 0), w.Disk("c", 1<<20, 0)}
	whole := w.Map("whole", "0 1536 striped 3 8 a 0 b 0 c 0")
	data := make([]byte, 1536*512)
	for i := range data {
		data[i] = byte(i>>9*7 + i)
	}
	dmtest.Write(t, whole, 0, data)
	for i, leg := range legs {
		dev := w.Map(fmt.Sprint("leg", i), fmt.Sprintf("0 512 unstriped 3 8 %d whole 0", i))
		if got := dmtest.Read(t, dev, 0, 512*512); !bytes.Equal(got, leg.Bytes()[:512*512]) {
			t.Errorf("stripe %d differs at %d", i, firstDiff(got, leg.Bytes()))
		}
		n := leg.Count(block.OpFlush)
		if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil || leg.Count(block.OpFlush) != n+1 {
			t.Errorf("stripe %d: flush: %v; the disk had %d (invariant 12)", i, err, leg.Count(block.OpFlush)-n)
		}
		dmtest.Write(t, dev, 4096-512, bytes.Repeat([]byte{byte(200 + i)}, 8192))
		if got := leg.Bytes()[4096-512:]; got[0] != byte(200+i) || got[8191] != byte(200+i) || got[8192] == byte(200+i) {
			t.Errorf("stripe %d: a write across chunks is not where it belongs", i)
		}
	}
}

// TestUnstripedRows: the kernel counts chunks from the start of the table, so
// a second row goes on where the first would.
func TestUnstripedRows(t *testing.T) {
	w := dmtest.New(t)
	a := w.Disk("a", 1<<20, 0)
	dev := w.Map("d", "0 16 zero\n16 32 unstriped 2 8 1 a 0")
	dmtest.Write(t, dev, 16*512, bytes.Repeat([]byte{7}, 8*512))
	if b := a.Bytes(); b[40*512] != 7 || b[48*512-1] != 7 || b[40*512-1] != 0 || b[48*512] != 0 {
		t.Error("the row's first chunk is not the table's third of stripe 1")
	}
	if _, err := w.Parse("0 4 zero\n4 32 unstriped 2 8 1 a 0"); err == nil {
		t.Error("a row that begins inside a chunk is taken")
	}
	if _, err := w.Parse("0 2048 unstriped 4294967295 4294967288 0 a 0"); err == nil {
		t.Error("chunks larger than the row are taken")
	}
	if _, err := w.Parse("0 2048 unstriped 1 8 4294967295 a 0"); err != nil {
		t.Errorf("a stripe far beyond a single one: %v", err)
	}
	dev = w.Map("e", "0 1024 unstriped 2 8 2 a 0")
	if err := dev.Do(t.Context(), block.Request{Op: block.OpDiscard, Off: 1016 * 512, Len: 4096}); !errors.Is(err, block.ErrIO) {
		t.Errorf("beyond the device: %v, want an input/output error", err)
	}
}

// TestUnstripedPassesContexts where chunks are whole data units.
func TestUnstripedPassesContexts(t *testing.T) {
	for _, c := range []struct {
		chunk  int
		native bool
	}{{8, true}, {32, true}, {4, false}, {1, false}} {
		t.Run(fmt.Sprint(c.chunk), func(t *testing.T) {
			w := dmtest.New(t)
			w.Disk("a", 1<<20, 2)
			table := fmt.Sprintf("0 512 unstriped 2 %d 1 a 0", c.chunk)
			checkContexts(t, w, table, table, c.native)
		})
	}
}
