package luks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"keyway/luks"
)

// TestKeysAreAddedChangedAndRemoved in both versions; no slot opens but with its
// last passphrase.
func TestKeysAreAddedChangedAndRemoved(t *testing.T) {
	ctx := context.Background()
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("LUKS%d", version), func(t *testing.T) {
			const size = 4 << 20
			f := image(t, size)
			o := luks.FormatOptions{Version: version, Key: cheap, KeySize: 32}
			if version == 2 {
				o.DataOffset = 1 << 20
			}
			e, v, err := luks.Format(ctx, f, size, []byte("a"), o)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Key.Wipe()
			// is checks which passphrases open now, by number of the keyslot.
			is := func(want map[int]string) {
				t.Helper()
				fresh, err := luks.Edit(f, size, luks.Options{})
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range []*luks.Editor{e, fresh} {
					if n := len(e.Header().Keyslots); n != len(want) {
						t.Errorf("%d keyslots are in use, want %d", n, len(want))
					}
					for slot, p := range want {
						if key, err := opens(t, e, f, p, slot); err != nil || !v.Key.Equal(key) {
							t.Errorf("keyslot %d with %q: %v", slot, p, err)
						}
					}
				}
			}
			is(map[int]string{0: "a"})
			if err := e.KillSlot(0, false); !errors.Is(err, luks.ErrLastKey) {
				t.Errorf("the last keyslot: %v", err)
			}
			if _, err := e.RemoveKey(ctx, []byte("a"), false); !errors.Is(err, luks.ErrLastKey) {
				t.Errorf("the last passphrase: %v", err)
			}
			if n, err := e.AddKey(ctx, v, []byte("b"), 5, cheap); err != nil || n != 5 {
				t.Fatal(n, err)
			}
			if n, err := e.AddKey(ctx, v, []byte("c"), luks.AnySlot, cheap); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			is(map[int]string{0: "a", 1: "c", 5: "b"})
			if _, err := e.AddKey(ctx, v, []byte("d"), 5, cheap); err == nil {
				t.Error("a keyslot in use is taken")
			}
			if n, err := e.RemoveKey(ctx, []byte("a"), false); err != nil || n != 0 {
				t.Fatal(n, err)
			}
			if _, err := e.ChangeKey(ctx, []byte("a"), []byte("x"), luks.AnySlot, cheap); !errors.Is(err, luks.ErrPassphrase) {
				t.Errorf("a passphrase that was removed is changed: %v", err)
			}
			n, err := e.ChangeKey(ctx, []byte("b"), []byte("B"), luks.AnySlot, cheap)
			if err != nil {
				t.Fatal(err)
			}
			if want := []int{0, 0, 5}[version]; n != want {
				t.Errorf("the changed key is in keyslot %d, want %d", n, want)
			}
			is(map[int]string{n: "B", 1: "c"})
			if err := e.KillSlot(1, false); err != nil {
				t.Fatal(err)
			}
			is(map[int]string{n: "B"})
			if err := e.KillSlot(1, false); err == nil {
				t.Error("a keyslot that is not in use is removed")
			}
			if err := e.KillSlot(n, true); err != nil {
				t.Fatal(err)
			}
			is(nil)
			// The volume is still open: its key makes the header whole again.
			if _, err := e.AddKey(ctx, v, []byte("again"), 3, cheap); err != nil {
				t.Fatal(err)
			}
			is(map[int]string{3: "again"})
		})
	}
}

// TestFullHeaderSaysSo, and what then still works.
func TestFullHeaderSaysSo(t *testing.T) {
	ctx := context.Background()
	for _, o := range []luks.FormatOptions{
		{Version: 1, Key: cheap, KeySize: 64},
		{KeyslotsSize: 3 * 132 << 10, Key: cheap, KeySize: 32, DataOffset: 1 << 20},
	} {
		f := image(t, 4<<20)
		e, v, err := luks.Format(ctx, f, 4<<20, []byte("0"), o)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Key.Wipe()
		n := 1
		for ; err == nil; n++ {
			_, err = e.AddKey(ctx, v, fmt.Append(nil, n), luks.AnySlot, cheap)
		}
		n--
		if want := []int{0, 8, 3}[e.Header().Version]; n != want || !errors.Is(err, luks.ErrFull) {
			t.Errorf("LUKS%d takes %d keys, want %d: %v", e.Header().Version, n, want, err)
		}
		if _, err := e.ChangeKey(ctx, []byte("1"), []byte("x"), luks.AnySlot, cheap); !errors.Is(err, luks.ErrFull) {
			t.Errorf("LUKS%d: a key is changed with no room: %v", e.Header().Version, err)
		}
		in := cheap
		in.InPlace = true
		if got, err := e.ChangeKey(ctx, []byte("1"), []byte("x"), luks.AnySlot, in); err != nil || got != 1 {
			t.Errorf("LUKS%d: in place: keyslot %d, %v", e.Header().Version, got, err)
		}
		for slot, p := range []string{"0", "x", "2"} {
			if key, err := opens(t, e, f, p, slot); err != nil || !v.Key.Equal(key) {
				t.Errorf("LUKS%d: keyslot %d: %v", e.Header().Version, slot, err)
			}
		}
	}
}

func TestProbeTellsWhatIsThere(t *testing.T) {
	f := image(t, 4<<20)
	if s, err := luks.Probe(f, 4<<20); s != "" || err != nil {
		t.Errorf("of zeroes: %q, %v", s, err)
	}
	for _, version := range []int{1, 2} {
		o := luks.FormatOptions{Version: version, Key: cheap, UUID: "01234567-89ab-cdef-0123-456789abcdef"}
		if version == 2 {
			o.DataOffset = 1 << 20
		}
		_, v, err := luks.Format(context.Background(), f, 4<<20, []byte("x"), o)
		if err != nil {
			t.Fatal(err)
		}
		v.Key.Wipe()
		if s, err := luks.Probe(f, 4<<20); s != fmt.Sprintf("LUKS%d header, UUID %s", version, o.UUID) || err != nil {
			t.Errorf("of LUKS%d: %q, %v", version, s, err)
		}
	}
	for at := int64(0); at <= 16<<10; at += 16 << 10 { // the checksums of both copies
		if _, err := f.WriteAt([]byte{1, 2, 3}, at+448); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := luks.Probe(f, 4<<20); !strings.HasPrefix(s, "damaged header of LUKS: ") || err != nil {
		t.Errorf("of damaged copies: %q, %v", s, err)
	}
	f.Close()
	if s, err := luks.Probe(f, 4<<20); err == nil {
		t.Errorf("of a closed file: %q", s)
	}
}

// TestLockFile: of two writers one is refused.
func TestLockFile(t *testing.T) {
	f := image(t, 1)
	g, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := luks.LockFile(f, true); err != nil {
		t.Fatal(err)
	}
	for _, exclusive := range []bool{true, false} {
		if err := luks.LockFile(g, exclusive); !errors.Is(err, luks.ErrLocked) {
			t.Errorf("a second lock: %v", err)
		}
	}
	f.Close()
	if err := luks.LockFile(g, true); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
	g.Close()
}

// TestOldMaterialIsOverwritten: of a keyslot that was removed, or whose passphrase was
// changed, no sector of the material is left, nor of one that Format found.
func TestOldMaterialIsOverwritten(t *testing.T) {
	ctx := context.Background()
	for _, version := range []int{1, 2} {
		volume, _ := crashVolume(t, version)
		size := int64(len(volume.now))
		for _, c := range []struct {
			name string
			do   func(m luks.Medium, e *luks.Editor) error
		}{
			{"kill", func(_ luks.Medium, e *luks.Editor) error { return e.KillSlot(1, false) }},
			{"remove", func(_ luks.Medium, e *luks.Editor) error { _, err := e.RemoveKey(ctx, []byte("b"), false); return err }},
			{"change", func(_ luks.Medium, e *luks.Editor) error {
				_, err := e.ChangeKey(ctx, []byte("b"), []byte("new"), luks.AnySlot, cheap)
				return err
			}},
			{"format", func(m luks.Medium, _ *luks.Editor) error {
				_, v, err := luks.Format(ctx, m, size, []byte("x"), luks.FormatOptions{Version: 1, Key: cheap, Cipher: "aes-cbc-plain64", KeySize: 16, Align: 512, Detached: true, DataSize: 1 << 20})
				if err == nil {
					v.Key.Wipe()
				}
				return err
			}},
		} {
			if c.name == "format" && version == 2 {
				continue // LUKS1 takes more room than there is
			}
			m := record(volume.now)
			e, err := luks.Edit(m, size, luks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			area := e.Header().Keyslots[1].Area
			if err := c.do(m, e); err != nil {
				t.Fatalf("LUKS%d, %s: %v", version, c.name, err)
			}
			for at := area.Offset; at < area.Offset+area.Size; at += sector {
				if bytes.Equal(m.now[at:][:sector], m.begin[at:][:sector]) {
					t.Errorf("LUKS%d, %s: the sector at byte %d is as it was", version, c.name, at)
					break
				}
			}
		}
	}
}
