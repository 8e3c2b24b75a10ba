package target_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/blocktest"
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

// snapWorld is an origin "o" of 64 KiB, its origin device "origin", and COW
// devices "c1", "c2" of so many bytes.
type snapWorld struct {
	*dmtest.World
	o, c1, c2 *dmtest.RAM
	origin    *dm.Handle
}

func newSnapWorld(t testing.TB, cow int64) *snapWorld {
	w := &snapWorld{World: dmtest.New(t)}
	w.o, w.c1, w.c2 = w.Disk("o", 64<<10, 0), w.Disk("c1", cow, 0), w.Disk("c2", cow, 0)
	content := make([]byte, 64<<10)
	for i := range content {
		content[i] = byte(i>>9)*3 + byte(i)
	}
	w.o.Set(content)
	w.origin = w.Map("origin", "0 128 snapshot-origin o")
	return w
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func sameRead(t *testing.T, what string, dev block.Device, off int64, want []byte) {
	t.Helper()
	if got := dmtest.Read(t, dev, off, len(want)); !bytes.Equal(got, want) {
		t.Errorf("%s: reads otherwise from %d on", what, off+int64(firstDiff(got, want)))
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

// TestSnapshotsAndTheirOrigin: what one of them writes, nobody else sees; what
// the origin writes, the snapshots do not; a later one begins later.
func TestSnapshotsAndTheirOrigin(t *testing.T) {
	for _, kind := range []string{"P", "N", "PO", "n", "po"} {
		t.Run(kind, func(t *testing.T) {
			w := newSnapWorld(t, 256<<10)
			at0 := w.o.Bytes()
			s1 := w.Map("s1", "0 128 snapshot o c1 "+kind+" 8")
			dmtest.Write(t, w.origin, 1000*0+512, fill(1, 8192)) // in three chunks
			at1 := w.o.Bytes()
			s2 := w.Map("s2", "0 128 snapshot o c2 "+kind+" 16")
			dmtest.Write(t, w.origin, 0, fill(2, 512))
			dmtest.Write(t, s1, 4096*8, fill(3, 4096)) // a whole chunk
			dmtest.Write(t, s1, 4096*9+512, fill(4, 512))
			dmtest.Write(t, s2, 4096*8-512, fill(5, 12288))
			want1, want2, want := at0, at1, bytes.Clone(at1)
			copy(want, fill(2, 512))
			copy(want1[4096*8:], fill(3, 4096))
			copy(want1[4096*9+512:], fill(4, 512))
			copy(want2[4096*8-512:], fill(5, 12288))
			sameRead(t, "the origin", w.origin, 0, want)
			sameRead(t, "the first snapshot", s1, 0, want1)
			sameRead(t, "the second snapshot", s2, 0, want2)
			if !bytes.Equal(w.o.Bytes(), want) {
				t.Error("a write to a snapshot has changed the origin")
			}
		})
	}
}

// TestSnapshotIsOfTheMoment of the first resume, not of the load; a reload that
// keeps the COW device keeps the snapshot, suspended or not.
func TestSnapshotIsOfTheMoment(t *testing.T) {
	w := newSnapWorld(t, 256<<10)
	m := dm.New("snap", dm.Options{})
	if err := m.Load(t.Context(), w.Table("0 128 snapshot o c1 N 8")); err != nil {
		t.Fatal(err)
	}
	dmtest.Write(t, w.origin, 0, fill(1, 512))
	if n := w.c1.Count(block.OpWrite); n != 0 {
		t.Errorf("%d writes to the COW device of a table that is only loaded", n)
	}
	want := w.o.Bytes()
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	dmtest.Write(t, w.origin, 0, fill(2, 512))
	h, err := m.Open("the test")
	if err != nil {
		t.Fatal(err)
	}
	sameRead(t, "after the resume", h, 0, want)
	if err := m.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	dmtest.Write(t, w.origin, 4096, fill(3, 512)) // and is kept although the snapshot is suspended
	if err := m.Load(t.Context(), w.Table("0 128 snapshot o c1 N 8 1 discard_zeroes_cow")); err != nil {
		t.Fatal(err)
	}
	dmtest.Write(t, w.origin, 8192, fill(3, 512))
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	dmtest.Write(t, w.origin, 12288, fill(3, 512))
	sameRead(t, "after a reload", h, 0, want)
	if got := status(h); !strings.HasSuffix(got, "32/512 0") {
		t.Errorf("status %q", got)
	}
	if err := m.Reload(t.Context(), w.Table("0 128 error"), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	n := w.c1.Count(block.OpWrite)
	dmtest.Write(t, w.origin, 20480, fill(4, 512))
	if got := w.c1.Count(block.OpWrite); got != n {
		t.Error("a snapshot that nobody has any more still keeps what the origin changes")
	}
	if x, err := w.origin.Explain(dm.Question{}); err != nil || x.Steps[0].Says != "there is no snapshot" {
		t.Errorf("the origin says %q, %v", x.Steps[0].Says, err)
	}
	h.Close()
	m.Remove(t.Context(), dm.RemoveOptions{})
}

// TestFullCOWDevice: the snapshot is invalid, or overflows if a write to it found
// no room and the table says PO; the origin goes on; an event tells of it; and
// the store knows it.
func TestFullCOWDevice(t *testing.T) {
	for _, c := range []struct {
		kind     string
		byOrigin bool
		status   string
		writeErr error
	}{
		{"P", true, "Invalid", block.ErrIO},
		{"P", false, "Invalid", block.ErrIO},
		{"PO", true, "Invalid", block.ErrIO},
		{"PO", false, "Overflow", block.ErrNoSpace},
		{"N", true, "Invalid", block.ErrIO},
		{"N", false, "Invalid", block.ErrIO},
	} {
		name := c.kind + " by the snapshot"
		if c.byOrigin {
			name = c.kind + " by the origin"
		}
		t.Run(name, func(t *testing.T) {
			w := newSnapWorld(t, 4*4096+512) // room for 2 chunks and metadata, or 4
			at0 := w.o.Bytes()
			snap := w.Map("snap", "0 128 snapshot o c1 "+c.kind+" 8")
			room := 2
			if c.kind == "N" {
				room = 4
			}
			for i := range room {
				dmtest.Write(t, w.origin, int64(i)*4096, fill(9, 512))
			}
			sameRead(t, "before", snap, 0, at0)
			event := snap.Event()
			at := int64(room) * 4096
			if c.byOrigin {
				dmtest.Write(t, w.origin, at, fill(9, 512))
			} else {
				r := block.Request{Op: block.OpWrite, Off: at, Len: 512, Data: block.Bytes(fill(9, 512))}
				if err := snap.Do(t.Context(), r); !errors.Is(err, c.writeErr) {
					t.Errorf("the write that finds no room: %v, want %v", err, c.writeErr)
				}
			}
			if snap.Event() == event {
				t.Error("no event")
			}
			if got := status(snap); !strings.HasSuffix(got, " "+c.status) {
				t.Errorf("status %q, want %s", got, c.status)
			}
			r := block.Request{Op: block.OpRead, Len: 512, Data: block.Bytes(make([]byte, 512))}
			if err := snap.Do(t.Context(), r); (err == nil) != (c.status == "Overflow") {
				t.Errorf("a read afterwards: %v", err)
			}
			r.Op = block.OpWrite
			if err := snap.Do(t.Context(), r); !errors.Is(err, c.writeErr) {
				t.Errorf("a write afterwards: %v, want %v", err, c.writeErr)
			}
			if c.status == "Overflow" {
				sameRead(t, "an overflowed snapshot", snap, 0, at0)
				dmtest.Write(t, w.origin, at, fill(9, 512)) // now something is lost
				if got := status(snap); !strings.HasSuffix(got, " Invalid") {
					t.Errorf("status %q, want Invalid", got)
				}
			}
			dmtest.Write(t, w.origin, 0, fill(8, 64<<10))
			sameRead(t, "the origin", w.origin, 0, fill(8, 64<<10))

			remove(t, w.World, "snap", snap)
			if c.kind == "N" {
				return
			}
			if b := w.c1.Bytes(); binary.LittleEndian.Uint32(b[4:]) != 0 || !bytes.HasPrefix(b, []byte("SnAp")) {
				t.Error("the store says that it is valid")
			}
			again := w.Map("again", "0 128 snapshot o c1 P 8")
			if got := status(again); !strings.HasSuffix(got, " Invalid") {
				t.Errorf("opened again: status %q, want Invalid", got)
			}
			if err := again.Do(t.Context(), r); !errors.Is(err, block.ErrIO) {
				t.Errorf("opened again: %v", err)
			}
		})
	}
}

// TestCOWDeviceMayGrow while the snapshot is in use: there is room at once.
func TestCOWDeviceMayGrow(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	before := w.o.Bytes()
	w.Map("small", "0 8 linear c1 0")
	snap := w.Map("snap", "0 128 snapshot o small P 1")
	for i := range int64(6) { // a header and a metadata area are there too
		dmtest.Write(t, w.origin, i*512, fill(1, 512))
	}
	if got := status(snap); !strings.HasSuffix(got, "8/8 2") {
		t.Errorf("status %q", got)
	}
	w.Reload("small", "0 128 linear c1 0")
	dmtest.Write(t, w.origin, 0, fill(2, 64*512))
	if got := status(snap); !strings.HasSuffix(got, "68/128 4") {
		t.Errorf("status %q", got)
	}
	sameRead(t, "the snapshot", snap, 0, before)
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

// TestSnapshotDiscards: without options none; discard_zeroes_cow zeroes whole
// chunks that have changed; discard_passdown_origin goes to the origin as well,
// but not past another snapshot.
func TestSnapshotDiscards(t *testing.T) {
	discard := block.Request{Op: block.OpDiscard, Off: 4096 - 512, Len: 8192}
	for _, c := range []struct {
		options string
		err     error
		zeroed  bool
		passed  bool
		another bool
	}{
		{options: "", err: block.ErrNotSupported},
		{options: " 1 discard_zeroes_cow", zeroed: true},
		{options: " 2 discard_zeroes_cow discard_passdown_origin", zeroed: true, passed: true},
		{options: " 2 discard_passdown_origin discard_zeroes_cow", zeroed: true, another: true},
	} {
		t.Run(c.options, func(t *testing.T) {
			w := newSnapWorld(t, 256<<10)
			snap := w.Map("snap", "0 128 snapshot o c1 P 8"+c.options)
			var other *dm.Handle
			at0 := w.o.Bytes()
			if c.another {
				other = w.Map("other", "0 128 snapshot o c2 P 8")
			}
			dmtest.Write(t, snap, 0, fill(7, 12288)) // three chunks, the middle one is discarded
			if err := snap.Do(t.Context(), discard); !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			want := fill(7, 12288)
			if c.zeroed {
				clear(want[4096:8192])
			}
			sameRead(t, "the snapshot", snap, 0, want)
			if passed := !bytes.Equal(w.o.Bytes(), at0); passed != c.passed {
				t.Errorf("the origin got the discard: %v, want %v", passed, c.passed)
			}
			if c.another {
				sameRead(t, "the other snapshot", other, 0, at0)
			}
			if i := snap.Info(); (i.Discard != block.None) != c.zeroed {
				t.Errorf("says of discards: %v", i.Discard)
			}
			if err := w.origin.Do(t.Context(), discard); !errors.Is(err, block.ErrNotSupported) {
				t.Errorf("discard of the origin: %v", err)
			}
		})
	}
}

// TestSnapshotRefuses what cannot be.
func TestSnapshotRefuses(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	w.Disk("junk", 64<<10, 0).Set([]byte("something"))
	header := func(words ...uint32) []byte {
		b := make([]byte, 4096)
		for i, n := range words {
			binary.LittleEndian.PutUint32(b[4*i:], n)
		}
		return b
	}
	w.Disk("version", 64<<10, 0).Set(header(0x70416e53, 1, 2, 8))
	w.Disk("odd", 64<<10, 0).Set(header(0x70416e53, 1, 1, 7))
	w.Disk("nothing", 64<<10, 0).Set(header(0x70416e53, 1, 1, 0))
	w.Disk("beyond", 64<<10, 0).Set(append(header(0x70416e53, 1, 1, 8), header(1, 0, 16, 0)...))
	w.Disk("itself", 64<<10, 0).Set(append(header(0x70416e53, 1, 1, 8), header(1, 0, 1, 0)...))
	w.Disk("twice", 64<<10, 0).Set(append(header(0x70416e53, 1, 1, 8), header(1, 0, 2, 0, 1, 0, 3, 0)...))
	w.Disk("shared", 64<<10, 0).Set(append(header(0x70416e53, 1, 1, 8), header(1, 0, 3, 0, 2, 0, 2, 0, 4, 0, 3, 0)...))
	big := dmtest.NewRAM(64 << 10)
	big.SetInfo(func(i *block.Info) { i.LogicalBlock, i.PhysicalBlock = 4096, 4096 })
	w.Leaf("big", big, nil)
	w.Disk("o2", 64<<10, 0)
	w.Map("used", "0 128 snapshot o c2 P 8")
	for table, want := range map[string]string{
		"0 128 snapshot o":                                  "argument 2 (COW device): missing",
		"0 128 snapshot o c1":                               "argument 3 (P, PO or N): missing",
		"0 128 snapshot o c1 X 8":                           `argument 3 (P, PO or N): "X" is none of them`,
		"0 128 snapshot o c1 PX 8":                          `"PX" is none of them`,
		"0 128 snapshot o c1 P":                             "argument 4 (chunk size, in sectors): missing",
		"0 128 snapshot o c1 P 7":                           "7 is not a power of two",
		"0 128 snapshot o c1 N 0":                           "N has none",
		"0 128 snapshot o c1 P 4194304":                     "4194304 is more than 4194303",
		"0 128 snapshot o c1 P 8 1 discard_passdown_origin": "discard_passdown_origin goes only with discard_zeroes_cow",
		"0 128 snapshot o c1 P 8 1 discard":                 `"discard" is neither`,
		"0 128 snapshot o c1 P 8 2 discard_zeroes_cow":      "2, but 1 words follow",
		"0 128 snapshot o c1 P 8 0 x":                       "surplus argument 6",
		"0 128 snapshot o o P 8":                            `COW device "o" is the origin itself`,
		"0 129 snapshot o c1 P 8":                           `device "o" is too small`,
		"0 128 snapshot o junk P 8":                         `COW device "junk" holds something that is no snapshot`,
		"0 128 snapshot o version P 8":                      "a store of version 2, and only 1 is known",
		"0 128 snapshot o odd P 8":                          "7 sectors, which is not a power of two",
		"0 128 snapshot o nothing P 8":                      "0 sectors, which is not a power of two",
		"0 128 snapshot o beyond P 8":                       "exception 0 says that chunk 1 of the origin is chunk 16 of the 16 of the store",
		"0 128 snapshot o itself P 8":                       "exception 0 says that chunk 1 of the origin is chunk 1 of",
		"0 128 snapshot o twice P 8":                        "chunk 1 of the origin is there twice",
		"0 128 snapshot o shared P 8":                       "chunk 3 of the store has the data of two chunks",
		"0 128 snapshot o big P 4":                          "chunks of 4 sectors are not whole blocks",
		"0 128 snapshot o2 c2 P 8":                          `COW device "c2" belongs to a snapshot of another origin`,
		"0 128 snapshot o c2 N 8":                           `COW device "c2" is in use: change between P and N`,
		"0 128 snapshot-origin":                             "argument 1 (origin): missing",
		"0 128 snapshot-origin o 0":                         "surplus argument 2",
		"0 129 snapshot-origin o":                           `device "o" is too small`,
	} {
		if _, err := w.Parse(table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", table, err, want)
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

// TestSnapshotKeepsOutPlaintext: with a key, what lies on the origin and on the
// COW device is ciphertext, that of one data unit wherever the unit is, and each
// device gives its own data back.
func TestSnapshotKeepsOutPlaintext(t *testing.T) {
	for _, slots := range []int{0, 2} {
		w := dmtest.New(t)
		w.Disk("data", 1<<20, slots)
		w.Disk("cow", 2<<20, slots)
		checkContexts(t, w, "0 2048 snapshot data cow P 8", "0 2048 snapshot data cow P 8", false)
		checkContexts(t, w, "0 2048 snapshot-origin data", "0 2048 linear data 0", false)
	}
}

// TestSnapshotRefusesMarks over default-key, which would encrypt what is copied
// once more: the mark is refused, never lost; elsewhere it means nothing.
func TestSnapshotRefusesMarks(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	w.AddKey("k", fill(3, 32))
	w.AddKey("k", append(fill(3, 32), fill(4, 32)...))
	w.Map("secret", "0 128 default-key aes-xts-plain64 :64:logon:k 0 o 0 2 sector_size:4096 iv_large_sectors")
	w.Map("above", "0 128 linear secret 0")
	w.Map("secretcow", "0 128 default-key aes-xts-plain64 :64:logon:k 0 c2 0 2 sector_size:4096 iv_large_sectors")
	for table, want := range map[string]error{
		"0 128 snapshot-origin above":     block.ErrNoCrypto,
		"0 128 snapshot-origin o":         nil,
		"0 128 snapshot above c1 N 8":     block.ErrNoCrypto,
		"0 128 snapshot c1 secretcow N 8": block.ErrNoCrypto,
		"0 128 linear above 0":            nil,
	} {
		dev := w.Map("top "+table, table)
		r := block.Request{Op: block.OpWrite, Flags: block.SkipDefaultKey, Len: 4096, Data: block.Bytes(fill(1, 4096))}
		if err := dev.Do(t.Context(), r); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", table, err, want)
		}
		r.Flags = 0
		if err := dev.Do(t.Context(), r); err != nil {
			t.Errorf("%s: without the mark: %v", table, err)
		}
		dev.Close()
		w.Device("top "+table).Remove(t.Context(), dm.RemoveOptions{})
	}
}

// TestSnapshotAllocatesNothing for what needs no copy.
func TestSnapshotAllocatesNothing(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	snap := w.Map("snap", "0 128 snapshot o c1 P 8")
	dmtest.Write(t, snap, 4096, fill(1, 4096))
	dmtest.Write(t, w.origin, 0, fill(1, 4096))
	for _, c := range []struct {
		name string
		dev  block.Device
		op   block.Op
		off  int64
	}{
		{"read of the origin", w.origin, block.OpRead, 0},
		{"write of the origin that was kept", w.origin, block.OpWrite, 0},
		{"read of a chunk on the COW device", snap, block.OpRead, 4096},
		{"read of a chunk on the origin", snap, block.OpRead, 8192},
		{"write of a chunk on the COW device", snap, block.OpWrite, 4096},
	} {
		for _, f := range []block.Flags{0, block.NoWait} {
			r := block.Request{Op: c.op, Flags: f, Off: c.off, Len: 4096, Data: block.Bytes(make([]byte, 4096))}
			n := testing.AllocsPerRun(100, func() {
				if err := c.dev.Do(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%s, flags %d: %v allocations", c.name, f, n)
			}
		}
	}
}

// TestTransientSnapshotConforms: as the others, but for what outlives it.
func TestTransientSnapshotConforms(t *testing.T) {
	blocktest.Device(t, func(t *testing.T) block.Device {
		w := dmtest.New(t)
		w.Disk("a", 1<<20, 0)
		w.Disk("b", 1<<20, 0)
		return w.Map("vol", "0 2048 snapshot a b N 8 1 discard_zeroes_cow")
	}, blocktest.Options{FewBlocks: true})
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
