package keyslot_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

var (
	ctx      = context.Background()
	slotNums = []int{1, 2, 3, 100}
	errFault = errors.New("scripted fault")

	smallUnits = blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 512, DUNBytes: 8}
)

// A testKey is a key and, for the test, its bytes.
type testKey struct {
	*blkcrypto.Key
	bytes []byte
}

func newKeyOf(tb testing.TB, name string, c blkcrypto.Config) testKey {
	tb.Helper()
	sum := sha512.Sum512([]byte(name))
	raw := sum[:c.Mode.KeySize()]
	b, err := secret.Copy(bytes.Clone(raw))
	if err != nil {
		tb.Fatal(err)
	}
	k, err := blkcrypto.NewKey(name, c, b)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { // locked memory is scarce
		c, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, _ = k.Evict(c)
	})
	return testKey{k, raw}
}

func newKey(tb testing.TB, name string) testKey { return newKeyOf(tb, name, smallUnits) }

func newKeys(tb testing.TB, n int) []testKey {
	ks := make([]testKey, n)
	for i := range ks {
		ks[i] = newKey(tb, fmt.Sprintf("k%d", i))
	}
	return ks
}

func newManager(tb testing.TB, slots int) (*keyslot.Manager, *enginetest.Engine) {
	e := enginetest.New(tb, slots)
	return keyslot.New(e), e
}

// holds reports through the slot itself whether k is in it.
func holds(s keyslot.Slot, k testKey) error {
	var zero, got [64]byte
	if err := s.Crypt(keyslot.Encrypt, blkcrypto.DUN{}, block.Bytes(got[:]), block.Bytes(zero[:])); err != nil {
		return err
	}
	if !bytes.Equal(got[:], k.bytes) {
		return fmt.Errorf("the slot given for %v holds another key", k)
	}
	return nil
}

func get(tb testing.TB, m *keyslot.Manager, k testKey) keyslot.Slot {
	tb.Helper()
	s, err := m.Get(ctx, k.Key, false)
	if err != nil {
		tb.Errorf("get %v: %v", k, err)
		return keyslot.Slot{}
	}
	if err := holds(s, k); err != nil {
		tb.Error(err)
	}
	return s
}

// use gets and puts.
func use(tb testing.TB, m *keyslot.Manager, k testKey) {
	tb.Helper()
	get(tb, m, k).Put()
}

// resident returns the slots where the manager believes k to be.
func resident(m *keyslot.Manager, k testKey) []int {
	var all []int
	for _, r := range m.Residents() {
		if r.ID == k.ID() {
			all = append(all, r.Slot)
		}
	}
	return all
}

// wantQuiet checks that nobody uses or waits for a slot, and that the table
// and the engine agree (blkcrypto.md invariants 15 and 18).
func wantQuiet(tb testing.TB, m *keyslot.Manager, e *enginetest.Engine) {
	tb.Helper()
	st := m.Stats()
	if st.Busy != 0 {
		tb.Errorf("%d slots in use, want none", st.Busy)
	}
	if got := e.Occupied(); st.Quarantined == 0 && got != st.Resident {
		tb.Errorf("%d slots of the engine hold a key, the table says %d", got, st.Resident)
	}
	for _, r := range m.Residents() {
		if r.Requests != 0 {
			tb.Errorf("slot %d: %d requests, want 0", r.Slot, r.Requests)
		}
	}
}

// fault fails the calls of one kind for which on returns true.
func fault(op enginetest.Op, on func(enginetest.Call) bool) func(enginetest.Call) error {
	return func(c enginetest.Call) error {
		if c.Op == op && on(c) {
			return errFault
		}
		return nil
	}
}

func always(enginetest.Call) bool { return true }
