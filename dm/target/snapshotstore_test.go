package target_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/test/fixtures"
)

// TestSnapshotOfTheKernel: what it stored reads as it says, and our store of the
// same history is the same, to the byte.
func TestSnapshotOfTheKernel(t *testing.T) {
	f := fixtures.Snapshot(t)
	origin, theirs := f.Disks["origin"].Bytes(t), f.Disks["cow"].Bytes(t)
	w := dmtest.New(t)
	w.Disk("origin", int64(len(origin)), 0).Set(origin)
	w.Disk("old", int64(len(theirs)), 0).Set(theirs)
	anew := w.Disk("new", int64(len(theirs)), 0)
	from := w.Map("from", f.TableOn("origin", "old"))
	to := w.Map("to", f.TableOn("origin", "new"))

	want := bytes.Clone(origin)
	for _, r := range f.Regions {
		copy(want[r.Offset:], r.Plain())
	}
	if got := dmtest.Read(t, from, 0, len(want)); !bytes.Equal(got, want) {
		t.Errorf("the kernel's snapshot reads otherwise at %d", firstDiff(got, want))
	}
	for _, r := range f.Regions { // the guest's page cache wrote whole pages
		low, high := r.Offset&^4095, (r.Offset+int64(r.Length)+4095)&^4095
		dmtest.Write(t, to, low, want[low:high])
	}
	if !bytes.Equal(anew.Bytes(), theirs) {
		t.Errorf("our store differs from the kernel's at %d", firstDiff(anew.Bytes(), theirs))
	}
	for name, dev := range map[string]*dm.Handle{"old": from, "new": to} {
		if got := strings.TrimSpace(dev.TableText(false, dm.StatusInfo)); got != f.Status {
			t.Errorf("%s: status %q, want %q", name, got, f.Status)
		}
		if got, want := strings.TrimSpace(dev.TableText(false, dm.StatusTable)), f.TableOn("origin", name); got != want {
			t.Errorf("%s: table %q, want %q", name, got, want)
		}
	}
}

// TestSnapshotLayout: the store byte by byte, over a boundary of areas: chunks of
// 512 bytes have areas of 32 exceptions.
func TestSnapshotLayout(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	w.c1.Set(append(make([]byte, 512), fill(0xee, 60<<10)...)) // junk behind a header of zeroes
	before := w.o.Bytes()
	snap := w.Map("snap", "0 128 snapshot o c1 P 1")
	if w.c1.Count(block.OpWrite)+w.c1.Count(block.OpWriteZeroes) != 0 {
		t.Error("a snapshot that has kept nothing has written to its COW device")
	}
	for i := range int64(33) {
		dmtest.Write(t, w.origin, 512*(100-i), fill(byte(i), 512)) // from behind, so that old and new numbers differ
	}
	sameRead(t, "the snapshot", snap, 0, before)

	got := w.c1.Bytes()
	u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	if u32(got) != 0x70416e53 || u32(got[4:]) != 1 || u32(got[8:]) != 1 || u32(got[12:]) != 1 || len(bytes.Trim(got[16:512], "\x00")) > 0 {
		t.Errorf("header % x", got[:20])
	}
	for i := range uint64(33) {
		at, place := 512+16*i, 2+i // the header and the first area come first
		if i == 32 {
			at, place = 512*34, 35 // and the second area after 32 chunks of data
		}
		if from, to := u64(got[at:]), u64(got[at+8:]); from != 100-i || to != place {
			t.Errorf("exception %d: %d is %d, want %d is %d", i, from, to, 100-i, place)
		}
		if !bytes.Equal(got[512*place:][:512], before[512*(100-i):][:512]) {
			t.Errorf("chunk %d has not the data of chunk %d of the origin", place, 100-i)
		}
	}
	if len(bytes.Trim(got[512*34+16:512*35], "\x00")) > 0 {
		t.Error("the second area goes on after its end")
	}
	if got, want := status(snap), "36/128 3"; !strings.HasSuffix(got, want) {
		t.Errorf("status %q, want %q", got, want)
	}

	remove(t, w.World, "snap", snap)
	again := w.Map("again", "0 128 snapshot o c1 P 0") // 0: as the store has it
	sameRead(t, "opened again", again, 0, before)
	if got, want := status(again), "36/128 3"; !strings.HasSuffix(got, want) {
		t.Errorf("status %q, want %q", got, want)
	}
	if got, want := strings.TrimSpace(again.TableText(false, dm.StatusTable)), "0 128 snapshot o c1 P 1"; got != want {
		t.Errorf("table %q, want %q", got, want)
	}
}

// TestStoreOverJunk: at each length of the store, and over what an older store,
// or metadata of which a crash has left only the later blocks, has put behind its
// end, it reads as what went into it.
func TestStoreOverJunk(t *testing.T) {
	for _, c := range []struct {
		chunk int // sectors
		torn  int // sectors written before the crash; 0: none
	}{{1, 0}, {2, 0}, {4, 0}, {2, 3}, {2, 62}, {4, 9}, {4, 250}} {
		w := newSnapWorld(t, 128<<10)
		before := w.o.Bytes()
		junk := make([]byte, 128<<10)
		oldStore(junk)
		w.c1.Set(junk)
		table := fmt.Sprint("0 128 snapshot o c1 P ", c.chunk)
		snap := w.Map("snap", table)
		for i := range 128 {
			if i > 0 && i == c.torn {
				remove(t, w.World, "snap", snap)
				b := w.c1.Bytes()
				area := b[512*c.chunk:][:512*c.chunk]
				next := (i + c.chunk - 1) / c.chunk * 16
				copy(area[min(next&^511+512, len(area)):], junk[512:])
				w.c1.Set(b)
				snap = w.Map("snap", table)
			}
			dmtest.Write(t, w.origin, int64(i)*512, fill(1, 512))
			again := newSnapWorld(t, 128<<10)
			again.o.Set(w.o.Bytes())
			again.c1.Set(w.c1.Bytes())
			sameRead(t, "opened again", again.Map("snap", table), 0, before)
			if t.Failed() {
				t.Fatalf("%+v: after %d sectors", c, i+1)
			}
		}
	}
}

// TestStoreFillsItsLastArea: an exception that would leave no room for the area
// with the end in it is one too many.
func TestStoreFillsItsLastArea(t *testing.T) {
	for cow, want := range map[int64]int{34: 31, 35: 32, 36: 33} { // chunks of 512 bytes; 32 fill an area
		w := newSnapWorld(t, cow*512)
		snap := w.Map("snap", "0 128 snapshot o c1 P 1")
		for i := range 64 {
			dmtest.Write(t, w.origin, int64(i)*512, fill(1, 512))
			if strings.HasSuffix(status(snap), "Invalid") != (i >= want) {
				t.Fatalf("%d chunks: %q after %d exceptions, want room for %d", cow, status(snap), i+1, want)
			}
		}
	}
}

// TestSnapshotHeaderWins over the table for the size of a chunk, and is the size
// that the table prints.
func TestSnapshotHeaderWins(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	snap := w.Map("snap", "0 128 snapshot o c1 P 4")
	dmtest.Write(t, snap, 0, fill(1, 512))
	remove(t, w.World, "snap", snap)
	again := w.Map("again", "0 128 snapshot o c1 PO 64")
	if got, want := strings.TrimSpace(again.TableText(false, dm.StatusTable)), "0 128 snapshot o c1 PO 4"; got != want {
		t.Errorf("table %q, want %q", got, want)
	}
	if got := strings.TrimSpace(w.Map("usual", "0 128 snapshot o c2 P 0").TableText(false, dm.StatusTable)); got != "0 128 snapshot o c2 P 32" {
		t.Errorf("table %q", got)
	}
}

// FuzzSnapshotStore: a COW device with any metadata is refused, or its snapshot
// can be read and written, and reads the same when it is opened again.
func FuzzSnapshotStore(f *testing.F) {
	store := func(words ...uint64) []byte {
		b := make([]byte, 8*len(words))
		for i, n := range words {
			binary.LittleEndian.PutUint64(b[8*i:], n)
		}
		return b
	}
	header := store(1<<32|0x70416e53, 1<<32|1)
	f.Add(append([]byte{}, header...), store(5, 2, 6, 3))
	f.Add(store(0x70416e53, 1<<32|1), store(5, 2))
	f.Add(store(1<<32|0x70416e53, 8<<32|1), store(1<<40, 2, 1, 0, 9, 9))
	f.Add(store(0, 0), store(5, 2))
	f.Add(append([]byte{}, header...), store(5, 4, 6, 3, 1, 2, 9, 40))
	f.Fuzz(func(t *testing.T, head, area []byte) {
		w := newSnapWorld(t, 32<<10)
		image := make([]byte, 32<<10)
		copy(image, head[:min(len(head), 512)])
		copy(image[512:], area[:min(len(area), 16<<10)])
		w.c1.Set(image)
		const table = "0 128 snapshot o c1 P 0"
		tab, err := w.Parse(table)
		if err != nil {
			return
		}
		if err := tab.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		snap := w.Map("snap", table)
		if strings.HasSuffix(status(snap), "Invalid") {
			return
		}
		before := dmtest.Read(t, snap, 0, 64<<10)
		for i := range int64(5) {
			dmtest.Write(t, w.origin, i*9000&^511, fill(1, 512))
			if strings.HasSuffix(status(snap), "Invalid") {
				return // full
			}
		}
		sameRead(t, "after writes to the origin", snap, 0, before)
		remove(t, w.World, "snap", snap)
		sameRead(t, "opened again", w.Map("snap", table), 0, before)
	})
}
