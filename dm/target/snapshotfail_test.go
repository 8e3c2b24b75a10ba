package target_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

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

// TestCOWDeviceFails: whatever fails while something is kept, the origin goes on,
// the snapshot is invalid, an event says why, and the store knows it, if it can be
// written at all.
func TestCOWDeviceFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		origin bool // fails, not the COW device
		op     block.Op
		after  int  // requests of that kind that still succeed
		told   bool // the store, whether or not it kept it
		says   string
	}{
		{"read of the origin", true, block.OpRead, 0, true, "invalid: copying a chunk"},
		{"data", false, block.OpWrite, 0, false, "could not be told"},
		{"flush before metadata", false, block.OpFlush, 0, true, "could not be told"},
		{"zeroes", false, block.OpWriteZeroes, 0, true, "invalid: writing metadata"},
		{"header", false, block.OpWrite, 1, false, "invalid: writing metadata"},
		{"metadata", false, block.OpWrite, 2, false, "invalid: writing metadata"},
		{"last flush", false, block.OpFlush, 3, true, "could not be told"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newSnapWorld(t, 64<<10)
			bad, left := dmtest.NewRAM(64<<10), c.after
			bad.Before = func(_ context.Context, r block.Request) error {
				if r.Op != c.op {
					return nil
				}
				if left--; left < 0 {
					return errors.New("broken")
				}
				return nil
			}
			w.Leaf("bad", bad, nil)
			origin, table := w.origin, "0 128 snapshot o bad P 8"
			if c.origin {
				origin, table = w.Map("other", "0 128 snapshot-origin bad"), "0 128 snapshot bad c1 P 8"
			}
			var events []string
			m := dm.New("snap", dm.Options{Event: func(_ *dm.Mapped, e dm.Event) {
				if e.Kind == dm.EventTarget {
					events = append(events, e.Detail)
				}
			}})
			if err := m.Reload(t.Context(), w.Table(table), dm.SuspendOptions{}); err != nil {
				t.Fatal(err)
			}
			dmtest.Write(t, origin, 512, fill(1, 512))
			dmtest.Write(t, origin, 8192, fill(1, 512))
			if got := strings.TrimSpace(m.TableText(false, dm.StatusInfo)); got != "0 128 snapshot Invalid" {
				t.Errorf("status %q", got)
			}
			if len(events) != 1 || !strings.Contains(events[0], c.says) {
				t.Errorf("events %q, want one with %q", events, c.says)
			}
			store := bad.Bytes()
			if c.origin {
				store = w.c1.Bytes()
			}
			if told := bytes.HasPrefix(store, []byte("SnAp\x00\x00\x00\x00\x01")); told != c.told {
				t.Errorf("the store says that it is invalid: %v, want %v: % x", told, c.told, store[:16])
			}
			m.Remove(t.Context(), dm.RemoveOptions{})
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
