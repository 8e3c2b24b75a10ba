// Package dmtest gives tests of mapped devices a small world to live in:
// disks in memory, devices by name, keys from table text.
package dmtest

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	_ "keyway/dm/target" // the targets that tables name
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// A World is a dm.Env.
type World struct {
	tb       testing.TB
	fallback *keyslot.Manager

	mu   sync.Mutex
	devs map[string]*dm.Mapped
	keys map[string]*testKey // by name
}

type testKey struct {
	bytes   []byte
	derived map[blkcrypto.Config]*derived
}

type derived struct {
	key  *blkcrypto.Key
	uses int
}

// New returns a world with a fallback of the usual size.
func New(tb testing.TB) *World { return NewWithFallback(tb, soft.FallbackSlots) }

// NewWithFallback returns a world whose fallback has so many slots.
func NewWithFallback(tb testing.TB, slots int) *World {
	return &World{
		tb: tb, fallback: keyslot.New(soft.New("fallback", slots)),
		devs: map[string]*dm.Mapped{}, keys: map[string]*testKey{},
	}
}

// Open opens a device by name.
func (w *World) Open(_ context.Context, name string, _ bool) (block.Device, error) {
	w.mu.Lock()
	m := w.devs[name]
	w.mu.Unlock()
	if m == nil {
		return nil, fmt.Errorf("no device %q", name)
	}
	return m.Open("a table")
}

// Fallback is the world's software engine.
func (w *World) Fallback() *keyslot.Manager { return w.fallback }

// Key derives the key that ref names.
func (w *World) Key(_ context.Context, ref dm.KeyRef, c blkcrypto.Config, weak bool) (*blkcrypto.Key, func(context.Context) error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.keys[ref.Name]
	if k == nil {
		return nil, nil, fmt.Errorf("no key %q", ref.Name)
	}
	if len(k.bytes) != ref.Size {
		return nil, nil, fmt.Errorf("key %q has %d bytes, not %d", ref.Name, len(k.bytes), ref.Size)
	}
	d := k.derived[c]
	if d == nil {
		b, err := secret.Copy(append([]byte(nil), k.bytes...))
		if err != nil {
			return nil, nil, err
		}
		build := blkcrypto.NewKey
		if weak {
			build = blkcrypto.NewDMCryptKey
		}
		made, err := build(ref.Name, c, b)
		if err != nil {
			return nil, nil, err
		}
		d = &derived{key: made}
		k.derived[c] = d
	}
	d.uses++
	return d.key, func(ctx context.Context) error {
		w.mu.Lock()
		d.uses--
		last := d.uses == 0
		if last {
			delete(k.derived, c)
		}
		w.mu.Unlock()
		if !last {
			return nil
		}
		_, err := d.key.Evict(ctx)
		return err
	}, nil
}

// AddKey puts a key under a name.
func (w *World) AddKey(name string, key []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys[name] = &testKey{key, map[blkcrypto.Config]*derived{}}
}

// Disk makes a leaf device of n bytes, with a software engine of so many
// slots in front of it, or none for 0.
func (w *World) Disk(name string, n int64, slots int) *RAM {
	w.tb.Helper()
	var e *keyslot.Manager
	if slots > 0 {
		e = keyslot.New(soft.New(name+"'s engine", slots))
	}
	d := NewRAM(n)
	w.Leaf(name, d, e)
	return d
}

// Leaf makes a leaf device.
func (w *World) Leaf(name string, dev block.Device, e *keyslot.Manager) *dm.Mapped {
	w.tb.Helper()
	m, err := dm.NewLeaf(name, dm.Leaf{Dev: dev, Text: "ram:" + name, Engine: e, Fallback: w.fallback}, w.options())
	if err != nil {
		w.tb.Fatal(err)
	}
	w.put(name, m)
	return m
}

func (w *World) options() dm.Options {
	return dm.Options{Warn: func(_ *dm.Mapped, err error) { w.tb.Error(err) }}
}

func (w *World) put(name string, m *dm.Mapped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devs[name] = m
}

// Device returns a device by name.
func (w *World) Device(name string) *dm.Mapped {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.devs[name]
}

// Parse builds a table from text that may contain keys in hex.
func (w *World) Parse(text string) (*dm.Table, error) {
	clean, err := dm.TakeKeys([]byte(text), func(_, _ string, digits []byte) (dm.KeyRef, error) {
		b, err := hex.DecodeString(string(digits))
		if err != nil {
			return dm.KeyRef{}, fmt.Errorf("not a key in hex")
		}
		name := fmt.Sprintf("key-%x", b[:min(4, len(b))])
		w.mu.Lock()
		known := w.keys[name]
		w.mu.Unlock()
		if known == nil || string(known.bytes) != string(b) {
			w.AddKey(name, b)
		}
		return dm.KeyRef{Size: len(b), Type: "logon", Name: name}, nil
	})
	if err != nil {
		return nil, err
	}
	return dm.Parse(context.Background(), clean, w, dm.ParseOptions{})
}

// Table is Parse for text that is right.
func (w *World) Table(text string) *dm.Table {
	w.tb.Helper()
	t, err := w.Parse(text)
	if err != nil {
		w.tb.Fatalf("table %q: %v", text, err)
	}
	return t
}

// Map makes a mapped device from table text and opens it.
func (w *World) Map(name, text string) *dm.Handle {
	w.tb.Helper()
	m := dm.New(name, w.options())
	if err := m.Reload(context.Background(), w.Table(text), dm.SuspendOptions{}); err != nil {
		w.tb.Fatal(err)
	}
	w.put(name, m)
	return w.Handle(name)
}

// Handle opens a device for the test.
func (w *World) Handle(name string) *dm.Handle {
	w.tb.Helper()
	h, err := w.Device(name).Open("the test")
	if err != nil {
		w.tb.Fatal(err)
	}
	return h
}

// Reload replaces the table of a device.
func (w *World) Reload(name, text string) {
	w.tb.Helper()
	if err := w.Device(name).Reload(context.Background(), w.Table(text), dm.SuspendOptions{}); err != nil {
		w.tb.Fatal(err)
	}
}

// Read reads n bytes at off.
func Read(tb testing.TB, dev block.Device, off int64, n int) []byte {
	tb.Helper()
	b := make([]byte, n)
	r := block.Request{Op: block.OpRead, Off: off, Len: int64(n), Data: block.Bytes(b)}
	if err := dev.Do(context.Background(), r); err != nil {
		tb.Fatalf("read of %d bytes at %d: %v", n, off, err)
	}
	return b
}

// Write writes b at off.
func Write(tb testing.TB, dev block.Device, off int64, b []byte) {
	tb.Helper()
	r := block.Request{Op: block.OpWrite, Off: off, Len: int64(len(b)), Data: block.Bytes(b)}
	if err := dev.Do(context.Background(), r); err != nil {
		tb.Fatalf("write of %d bytes at %d: %v", len(b), off, err)
	}
}

// NewKey makes a key for requests of the test.
func NewKey(tb testing.TB, name string, c blkcrypto.Config, seed byte) *blkcrypto.Key {
	tb.Helper()
	b := make([]byte, c.Mode.KeySize())
	for i := range b {
		b[i] = seed + byte(i*7)
	}
	s, err := secret.Copy(b)
	if err != nil {
		tb.Fatal(err)
	}
	k, err := blkcrypto.NewKey(name, c, s)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}
