package luks_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"keyway/luks"
)

// TestFormatOverAVolume: what a crash leaves is the old volume, no volume, or the
// new one, never a header that opens with neither passphrase; and in the end nothing
// of the old header can be found, wherever its copies were.
func TestFormatOverAVolume(t *testing.T) {
	ctx := context.Background()
	const size = 1<<20 + 64<<10
	passphrase := func(n int) string { return string(rune('a' + n)) }
	kinds := []luks.FormatOptions{
		{Version: 1, Key: cheap, Cipher: "aes-cbc-plain64", KeySize: 16},
		{Key: cheap, Cipher: "aes-cbc-plain64", KeySize: 16, DataOffset: 256 << 10},
		{Key: cheap, Cipher: "aes-cbc-plain64", KeySize: 16, DataOffset: 512 << 10, MetadataSize: 128 << 10},
	}
	for from := range kinds {
		for to := range kinds {
			m := record(make([]byte, size))
			_, old, err := luks.Format(ctx, m, size, []byte(passphrase(from)), kinds[from])
			if err != nil {
				t.Fatal(err)
			}
			m = record(m.now)
			_, v, err := luks.Format(ctx, m, size, []byte("new"), kinds[to])
			if err != nil {
				t.Fatal(err)
			}
			was, is := newOpened(bytes.Clone(old.Key.Bytes())), newOpened(bytes.Clone(v.Key.Bytes()))
			old.Key.Wipe()
			v.Key.Wipe()
			m.crashes(7, func(where string, b []byte) {
				if _, err := luks.Read(bytes.NewReader(b), size, luks.Options{}); err != nil {
					return
				}
				if e1, e2 := was.at(b, passphrase(from), luks.AnySlot), is.at(b, "new", luks.AnySlot); e1 != nil && e2 != nil {
					t.Fatalf("%d over %d, %s: a header that opens with neither: %v, %v", to, from, where, e1, e2)
				}
			})
			// Without its first copy the new header may be found by its second, the old
			// one never.
			clear(m.now[:4096])
			if to > 0 {
				clear(m.now[kinds[to].MetadataSize:][:4096])
				if kinds[to].MetadataSize == 0 {
					clear(m.now[copySize:][:4096])
				}
			}
			if h, err := luks.Read(bytes.NewReader(m.now), size, luks.Options{Data: -1}); !errors.Is(err, luks.ErrNotLUKS) {
				t.Errorf("%d over %d: the old header is found: %+v, %v", to, from, h, err)
			}
		}
	}
}

// TestMediumFails: at every operation of every change; the error is told, the editor
// does not go on, and the header on the medium opens.
func TestMediumFails(t *testing.T) {
	ctx := context.Background()
	for _, version := range []int{1, 2} {
		volume, key := crashVolume(t, version)
		o := newOpened(key)
		for _, c := range changes {
			if !bytes.ContainsRune([]byte(c.versions), rune('0'+version)) || c.name == "repair" {
				continue
			}
			refused := 0
			for n := 0; ; n++ {
				m := record(volume.now)
				e, err := luks.Edit(m, int64(len(m.now)), luks.Options{})
				if err != nil {
					t.Fatal(err)
				}
				v, err := e.Header().Open(ctx, m, []byte("a"), 0)
				if err != nil {
					t.Fatal(err)
				}
				m.failAt = n
				err = c.do(ctx, e, v)
				if err == nil {
					v.Key.Wipe()
					if n < 2 || refused == 0 {
						t.Errorf("LUKS%d, %s: %d operations, after %d failures it refused to go on", version, c.name, n, refused)
					}
					break
				}
				if !errors.Is(err, errMedium) {
					t.Errorf("LUKS%d, %s, operation %d: %v", version, c.name, n, err)
				}
				for slot, p := range c.others {
					if err := o.at(m.now, p, slot); err != nil {
						t.Errorf("LUKS%d, %s, operation %d: keyslot %d: %v", version, c.name, n, slot, err)
					}
				}
				// What the editor goes on with is what a reader finds.
				m.failAt = -1
				if err := e.SetUUID("01234567-89ab-cdef-0123-456789abcdef"); err != nil {
					refused++
				} else {
					if h, err := luks.Read(m, int64(len(m.now)), luks.Options{}); err != nil || len(h.Keyslots) != len(e.Header().Keyslots) {
						t.Errorf("LUKS%d, %s, operation %d: %v, keyslots %d and %d", version, c.name, n, err, len(h.Keyslots), len(e.Header().Keyslots))
					}
				}
				v.Key.Wipe()
			}
		}
	}
}

// An interrupting medium ends a context with the first write.
type interrupting struct {
	*recorder
	interrupt func()
}

func (m interrupting) WriteAt(b []byte, off int64) (int, error) {
	m.interrupt()
	return m.recorder.WriteAt(b, off)
}

// TestInterruptedFormatChangesNothing: what takes long comes before the first write,
// so who interrupts it keeps the old volume; afterwards there is nothing to wait for.
func TestInterruptedFormatChangesNothing(t *testing.T) {
	const size = 1<<20 + 64<<10
	for _, version := range []int{1, 2} {
		o := luks.FormatOptions{Version: version, Key: cheap, Cipher: "aes-cbc-plain64", KeySize: 16}
		if version == 2 {
			o.DataOffset = 256 << 10
		}
		ctx, cancel := context.WithCancel(t.Context())
		m := interrupting{record(make([]byte, size)), cancel}
		e, v, err := luks.Format(ctx, m, size, []byte("a"), o)
		if err != nil || ctx.Err() == nil {
			t.Fatalf("LUKS%d: interrupted with the first write: %v", version, err)
		}
		v.Key.Wipe()
		if _, err := opens(t, e, m, "a", luks.AnySlot); err != nil {
			t.Errorf("LUKS%d: %v", version, err)
		}
		m.recorder = record(m.now)
		if _, _, err := luks.Format(ctx, m, size, []byte("b"), o); !errors.Is(err, context.Canceled) || len(m.log) > 0 {
			t.Errorf("LUKS%d: interrupted before: %v, %d writes", version, err, len(m.log))
		}
	}
}
