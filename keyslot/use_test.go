package keyslot

import (
	"bytes"
	"context"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/secret"
)

// acceptor is an engine that takes everything and does nothing.
type acceptor struct{}

func (acceptor) Name() string                                { return "acceptor" }
func (acceptor) Profile() blkcrypto.Profile                  { return blkcrypto.AllRaw() }
func (acceptor) Slots() int                                  { return 1 }
func (acceptor) Program(int, blkcrypto.Config, []byte) error { return nil }
func (acceptor) Evict(int) error                             { return nil }
func (acceptor) Crypt(int, Direction, blkcrypto.DUN, block.Segments, block.Segments) error {
	return nil
}

func newRawKey(t *testing.T, name string) *blkcrypto.Key {
	t.Helper()
	b, err := secret.Copy(append(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)...))
	if err != nil {
		t.Fatal(err)
	}
	c := blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 512, DUNBytes: 8}
	k, err := blkcrypto.NewKey(name, c, b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A Get is overtaken between find and its reference: the slot has gone to
// another key, has been emptied, or is being programmed. No request may get
// it then, and the reference does not stay (blkcrypto.md invariants 13, 15).
func TestSlotFoundTooLateIsNotUsed(t *testing.T) {
	ctx := context.Background()
	m := New(acceptor{})
	var keys [2]*blkcrypto.Key
	for i := range keys {
		keys[i] = newRawKey(t, "k")
	}
	program := func(k *blkcrypto.Key) {
		s, err := m.Get(ctx, k, false)
		if err != nil {
			t.Fatal(err)
		}
		s.Put()
	}
	program(keys[0])
	found := m.find(keys[0])
	for _, tt := range []struct {
		name     string
		overtake func()
	}{
		{"another key", func() { program(keys[1]) }},
		{"emptied", func() {
			if err := m.Evict(ctx, keys[1]); err != nil {
				t.Fatal(err)
			}
		}},
		{"taken", func() { found.refs.Store(taken) }},
	} {
		tt.overtake()
		refs := found.refs.Load()
		if m.use(found, keys[0]) {
			t.Errorf("%s: the slot is used", tt.name)
			m.drop(found)
		}
		if got := found.refs.Load(); got != refs {
			t.Errorf("%s: %d references, want %d", tt.name, got, refs)
		}
	}
	found.refs.Store(0)
	program(keys[0])
	if !m.use(m.find(keys[0]), keys[0]) {
		t.Error("the slot of the key is not used")
	}
}

// Two keys of one name are two keys, wherever they stand: here in one chain of the
// table, where a request looks at the one on its way to the other (dm-fscrypt.md,
// invariant 11).
func TestKeysOfOneNameAreNotMistakenForEachOther(t *testing.T) {
	m := New(acceptor{})
	one := newRawKey(t, "k")
	other := newRawKey(t, "k")
	for m.chain(other) != m.chain(one) {
		other = newRawKey(t, "k")
	}
	for _, k := range []*blkcrypto.Key{one, other, one} {
		s, err := m.Get(t.Context(), k, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.s.key.Load(); got != k {
			t.Errorf("asked for key %d, got the slot of key %d", k.ID(), got.ID())
		}
		s.Put()
	}
}
