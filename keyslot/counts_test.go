package keyslot_test

import (
	"context"
	"testing"
	"testing/synctest"

	"keyway/blkcrypto"
)

// TestKeyCountsItsKeyslots: programs, evictions and waits, of each key by itself, and
// together they are the manager's.
func TestKeyCountsItsKeyslots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newManager(t, 1)
		a, b := newKey(t, "a"), newKey(t, "b")
		use(t, m, a)
		use(t, m, a)
		held := get(t, m, b) // in a's place
		got := make(chan error)
		go func() {
			s, err := m.Get(context.Background(), a.Key, false)
			if err == nil {
				s.Put()
			}
			got <- err
		}()
		synctest.Wait()
		held.Put()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if err := m.Reset(e.Lose); err != nil {
			t.Fatal(err)
		}
		for _, k := range []testKey{a, b} {
			if _, err := k.Evict(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := a.Counts(), (blkcrypto.Counts{Waits: 1, Programs: 3, Evictions: 1}); got != want {
			t.Errorf("a: %+v, want %+v", got, want)
		}
		if got, want := b.Counts(), (blkcrypto.Counts{Programs: 1}); got != want {
			t.Errorf("b: %+v, want %+v", got, want)
		}
		sum := a.Counts()
		sum.Add(b.Counts())
		if st := m.Stats(); st.Waits != sum.Waits || st.Programs != sum.Programs || st.Evictions != sum.Evictions {
			t.Errorf("manager %+v, keys together %+v", st, sum)
		}
	})
}
