package fscrypt_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"keyway/fscrypt"
	"keyway/internal/invariant"
	"keyway/internal/secret"
	"keyway/internal/secret/secrettest"
)

// Whichever piece of key memory cannot be had, what was made before it is given back
// (dm-fscrypt.md, invariant 64).
func TestKeyMemoryRunsOut(t *testing.T) {
	out := secrettest.WithLimit(t, 1<<20, func() {
		old, err := fscrypt.NewMasterKey(counting(1, 64))
		if err != nil {
			t.Fatal(err)
		}
		var all []*secret.Buffer
		for {
			b, err := secret.New(4096)
			if err != nil {
				break
			}
			all = append(all, b)
		}
		failed := 0
		for range 40 {
			before := secret.Held()
			err := errors.Join(derive(old), everything())
			if after := secret.Held(); invariant.Enabled && after != before {
				t.Errorf("with %d pieces: %+v locked, want %+v (%v)", len(all), after, before, err)
			}
			if err == nil {
				break
			}
			failed++
			all[len(all)-1].Wipe()
			all = all[:len(all)-1]
		}
		if err := everything(); err != nil || failed == 0 {
			t.Fatalf("failed %d times, at last: %v", failed, err)
		}
		fmt.Println("failed", failed)
	})
	if !strings.Contains(out, "failed") {
		t.Errorf("the child says %q", out)
	}
	t.Log(out)
}

// everything makes a key, derives all that there is, and wipes it.
func everything() error {
	m, err := fscrypt.NewMasterKey(counting(1, 64))
	if err != nil {
		return err
	}
	defer m.Wipe()
	return derive(m)
}

func derive(m *fscrypt.MasterKey) error {
	policies := []fscrypt.Policy{v1(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0)} // its keys take a cipher to derive
	for _, p := range slices.AppendSeq(policies, maps.Values(nameModes(m))) {
		f, err := fscrypt.Open(m, ext4(), fscrypt.Context{Policy: p}, 5)
		if err != nil {
			return err
		}
		k, err := f.NewKey("test")
		if err != nil {
			return err
		}
		if _, err := k.Evict(context.Background()); err != nil {
			return err
		}
		n, err := f.Names()
		if err != nil {
			return err
		}
		n.Wipe()
		if p.Version == 2 {
			h, err := f.DirHash()
			if err != nil {
				return err
			}
			h.Wipe()
		}
	}
	return nil
}

// A key that goes while files are opened leaves them without one, and nothing half
// made.
func TestWipeBesideDerivations(t *testing.T) {
	m, err := fscrypt.NewMasterKey(counting(1, 64))
	if err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, m, ext4(), v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), 9, 5)
	want := keyBytes(t, f)
	var started, done sync.WaitGroup
	for range 4 {
		started.Add(1)
		done.Go(func() {
			for i := range 1000 {
				k, err := f.NewKey("test")
				if i == 0 {
					started.Done()
				}
				if errors.Is(err, fscrypt.ErrKeyGone) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				k.Program(nil, func(b []byte) error {
					if string(b) != string(want) {
						t.Errorf("key %x, want %x", b, want)
					}
					return nil
				})
				k.Release(nil)
				if _, err := k.Evict(context.Background()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	started.Wait()
	m.Wipe()
	done.Wait()
	if _, err := f.NewKey("test"); !errors.Is(err, fscrypt.ErrKeyGone) {
		t.Errorf("after Wipe: %v", err)
	}
}
