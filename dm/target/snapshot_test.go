package target_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/blocktest"
	"keyway/internal/dmtest"
)

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

// TestSnapshotIsOfTheMoment of the first resume, not of the load (dm-fscrypt.md,
// invariant 30); a reload that keeps the COW device keeps the snapshot, suspended
// or not.
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

// TestSnapshotFlushes: one of the snapshot reaches both devices (dm-fscrypt.md,
// invariant 12), one of the origin only its own.
func TestSnapshotFlushes(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	snap := w.Map("snap", "0 128 snapshot o c1 N 8")
	for i, dev := range []block.Device{w.origin, snap} {
		before := [2]int64{w.o.Count(block.OpFlush), w.c1.Count(block.OpFlush)}
		if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
			t.Fatal(err)
		}
		got := [2]int64{w.o.Count(block.OpFlush) - before[0], w.c1.Count(block.OpFlush) - before[1]}
		if want := [2]int64{1, int64(i)}; got != want {
			t.Errorf("%d: flushes of origin and COW device %v, want %v", i, got, want)
		}
	}
}

// TestOriginEndsInsideAChunk, and inside a block of the COW device, and begins
// inside a row that begins inside a chunk.
func TestOriginEndsInsideAChunk(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	w.Disk("odd", 64<<10-1536, 0).Set(w.o.Bytes()[:64<<10-1536])
	before := w.Device("odd").Info()
	cow := dmtest.NewRAM(256 << 10)
	cow.SetInfo(func(i *block.Info) { i.LogicalBlock, i.PhysicalBlock = 4096, 4096 })
	w.Leaf("big", cow, nil)
	origin := w.Map("odd-origin", "0 125 snapshot-origin odd")
	snap := w.Map("snap", "0 8 zero\n8 112 snapshot odd big P 64")
	want := dmtest.Read(t, snap, 0, 120<<9)
	for at := int64(0); at < before.Size; at += 512 * 25 {
		dmtest.Write(t, origin, at, fill(9, 512*25))
	}
	sameRead(t, "the snapshot", snap, 0, want)
	dmtest.Write(t, snap, 4096, fill(8, 8192))
	copy(want[4096:], fill(8, 8192))
	sameRead(t, "the snapshot", snap, 0, want)
	sameRead(t, "the origin", origin, 0, fill(9, int(before.Size)))
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

// TestSnapshotKeepsOutPlaintext: with a key, what lies on the origin and on the
// COW device is ciphertext, that of one data unit wherever the unit is, and each
// device gives its own data back (dm-fscrypt.md, invariants 4 and 46).
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
// once more: the mark is refused, never lost (dm-fscrypt.md, invariant 68);
// elsewhere it means nothing.
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
