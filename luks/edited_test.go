package luks_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"keyway/internal/race"
	"keyway/luks"
	"keyway/test/fixtures"
)

// TestFixturesAreEdited: keys are added to, changed in and removed from what others
// formatted; their own keys open all the while, and the data is not touched.
func TestFixturesAreEdited(t *testing.T) {
	ctx := context.Background()
	n := 0
	for i, d := range fixtures.LUKS(t) {
		if d.Expect != "open" || i%race.Every(4) != 0 {
			continue
		}
		header, data := d.Devices(t)
		m := ram{record(header)}
		size := int64(len(header))
		o := luks.Options{}
		if d.Header != nil {
			o.Data = int64(len(data))
		}
		e, err := luks.Edit(m, size, o)
		if err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		theirs := func(when string) {
			t.Helper()
			h, err := luks.Read(m, size, o)
			if err != nil {
				t.Fatalf("%s, %s: %v", d.Name, when, err)
			}
			for _, slot := range d.SlotNumbers() {
				v, err := h.Open(ctx, m, d.Key(slot), slot)
				if err != nil {
					t.Fatalf("%s, %s: keyslot %d: %v", d.Name, when, slot, err)
				}
				if d.VolumeKeyHex != "" && hex.EncodeToString(v.Key.Bytes()) != d.VolumeKeyHex {
					t.Errorf("%s, %s: keyslot %d opens to another key", d.Name, when, slot)
				}
				v.Key.Wipe()
			}
		}
		first := d.SlotNumbers()[0]
		v, err := e.Header().Open(ctx, m, d.Key(first), first)
		if err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		defer v.Key.Wipe()
		slot, err := e.AddKey(ctx, v, []byte("ours"), luks.AnySlot, cheap)
		if errors.Is(err, luks.ErrFull) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", d.Name, err)
			continue
		}
		n++
		if slot, err = e.ChangeKey(ctx, []byte("ours"), []byte("ours too"), slot, cheap); err != nil && !errors.Is(err, luks.ErrFull) {
			t.Errorf("%s: %v", d.Name, err)
			continue
		} else if err == nil {
			theirs("changed")
			if key, err := opens(t, e, m, "ours too", slot); err != nil || !v.Key.Equal(key) {
				t.Errorf("%s: the changed key: %v", d.Name, err)
			}
			if err := e.KillSlot(slot, false); err != nil {
				t.Errorf("%s: %v", d.Name, err)
			}
			theirs("removed")
		}
		if off := e.Header().Segments[0].Offset; d.Header == nil && !bytes.Equal(m.now[off:], header[off:]) {
			t.Errorf("%s: the data is changed", d.Name)
		}
	}
	if n < 14/race.Every(7) {
		t.Errorf("%d edited, want at least 14", n)
	}
}

// TestMeasuredDerivations: without forced parameters they are measured, within the
// bounds that were given.
func TestMeasuredDerivations(t *testing.T) {
	ctx := context.Background()
	const size = 2 << 20
	for _, k := range []luks.KDFOptions{
		{Time: 1, Memory: 1024}, {Type: "argon2i", Time: 1, Memory: 256, CPUs: 1}, {Type: "pbkdf2", Time: 1, Hash: "sha512"},
	} {
		o := small
		o.Key.KDF = k
		m := ram{record(make([]byte, size))}
		e, v, err := luks.Format(ctx, m, size, []byte("x"), o)
		if err != nil {
			t.Fatal(err)
		}
		got := e.Header().Keyslots[0].KDF
		switch {
		case k.Type == "pbkdf2":
			if got.Type != "pbkdf2" || got.Hash != "sha512" || got.Iterations < 1000 {
				t.Errorf("%+v: %+v", k, got)
			}
		case k.Type == "" && got.Type != "argon2id", k.Type != "" && got.Type != k.Type, got.Time < 4, got.Memory < 32, k.Memory > 0 && got.Memory > k.Memory, got.CPUs < 1 || got.CPUs > 4:
			t.Errorf("%+v: %+v", k, got)
		}
		if key, err := opens(t, e, m, "x", 0); err != nil || !v.Key.Equal(key) {
			t.Errorf("%+v: %v", k, err)
		}
		v.Key.Wipe()
	}
	for _, k := range []luks.KDFOptions{
		{Type: "scrypt"}, {Iterations: 3}, {Iterations: 1 << 17}, {Iterations: -1}, {Time: -1}, {Memory: 31, Iterations: 4}, {Memory: 8 << 20, Iterations: 4},
		{CPUs: 5, Iterations: 4}, {Type: "pbkdf2", Iterations: 999}, {Type: "pbkdf2", Memory: 64}, {Type: "pbkdf2", Hash: "rot13"}, {Hash: "rot13", Iterations: 4, Memory: 64},
	} {
		o := small
		o.Key.KDF = k
		m := ram{record(make([]byte, size))}
		if _, v, err := luks.Format(ctx, m, size, []byte("x"), o); err == nil {
			v.Key.Wipe()
			t.Errorf("%+v is taken", k)
		}
		if !bytes.Equal(m.now, m.begin) {
			t.Errorf("%+v: refused, and the medium is changed", k)
		}
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	m := ram{record(make([]byte, size))}
	if _, _, err := luks.Format(done, m, size, []byte("x"), small); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}
