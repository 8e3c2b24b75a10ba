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

// A Get is overtaken between find and its reference: the slot has gone to
// another key, has been emptied, or is being programmed. No request may get
// it then, and the reference does not stay (blkcrypto.md invariants 13, 15).
func TestSlotFoundTooLateIsNotUsed(t *testing.T) {
	ctx := context.Background()
	m := New(acceptor{})
	var keys [2]*blkcrypto.Key
	for i := range keys {
		b, err := secret.Copy(append(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)...))
		if err != nil {
			t.Fatal(err)
		}
		c := blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 512, DUNBytes: 8}
		if keys[i], err = blkcrypto.NewKey("k", c, b); err != nil {
			t.Fatal(err)
		}
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
