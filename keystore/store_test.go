package keystore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

func config(unit int) blkcrypto.Config {
	return blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: 8}
}

func buffer(t *testing.T, n int, seed byte) *secret.Buffer {
	t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) + seed
	}
	s, err := secret.Copy(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t *testing.T, s *Store, name string) {
	t.Helper()
	if err := s.Add(Desc{Name: name, Config: config(4096), Source: "test"}, buffer(t, 64, 1)); err != nil {
		t.Fatal(err)
	}
}

func use(t *testing.T, s *Store, name string, unit int) (*blkcrypto.Key, func(context.Context) error) {
	t.Helper()
	k, release, err := s.Use(name, 64, config(unit), false)
	if err != nil {
		t.Fatal(err)
	}
	return k, release
}

// program puts k into a slot of a new engine.
func program(t *testing.T, k *blkcrypto.Key) *keyslot.Manager {
	t.Helper()
	m := keyslot.New(soft.New("engine of the test", 2))
	s, err := m.Get(t.Context(), k, false)
	if err != nil {
		t.Fatal(err)
	}
	s.Put()
	return m
}

func TestUsersOfOneConfigShareOneKey(t *testing.T) {
	var s Store
	add(t, &s, "k")
	a, relA := use(t, &s, "k", 4096)
	b, relB := use(t, &s, "k", 4096)
	c, relC := use(t, &s, "k", 512)
	if a != b {
		t.Error("two users of one config got two keys")
	}
	if a == c {
		t.Error("users of two configs share a key")
	}
	m := program(t, a)
	if err := relA(t.Context()); err != nil || a.Evicted() {
		t.Errorf("first release: %v, evicted %v; want nil, false: another uses it", err, a.Evicted())
	}
	if err := relA(t.Context()); err != nil {
		t.Errorf("released twice: %v", err)
	}
	if err := relB(t.Context()); err != nil || !a.Evicted() || m.Stats().Resident != 0 {
		t.Errorf("last release: %v, evicted %v, %d resident; want nil, true, 0", err, a.Evicted(), m.Stats().Resident)
	}
	again, rel := use(t, &s, "k", 4096)
	if again == a {
		t.Error("an evicted key was handed out again") // dm-fscrypt.md invariant 56
	}
	if err := errors.Join(rel(t.Context()), relC(t.Context())); err != nil {
		t.Error(err)
	}
}

// A reload that revokes kills a key which other tables have too: to those it is
// dead, and not to whoever names it next.
func TestARevokedKeyIsMadeAnewForOthers(t *testing.T) {
	var s Store
	add(t, &s, "k")
	a, relA := use(t, &s, "k", 4096)
	m := program(t, a)
	if _, err := a.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, relB := use(t, &s, "k", 4096)
	if b == a || b.Evicted() {
		t.Fatal("a key that has been revoked was handed out") // dm-fscrypt.md invariant 56
	}
	if err := relA(t.Context()); err != nil || b.Evicted() {
		t.Errorf("release of the old one: %v, the new one evicted %v", err, b.Evicted())
	}
	if err := relB(t.Context()); err != nil || !b.Evicted() || m.Stats().Resident != 0 {
		t.Errorf("release of the new one: %v, evicted %v, %d resident", err, b.Evicted(), m.Stats().Resident)
	}
	if e := s.entries["k"]; len(e.left) != 0 || len(e.derived) != 0 {
		t.Errorf("%d keys are left, %d derived", len(e.left), len(e.derived))
	}
}

func TestUseChecksTheReference(t *testing.T) {
	var s Store
	add(t, &s, "k")
	s.AddMissing(Desc{Name: "gone", Config: config(4096)}, "its file is not there")
	for _, x := range []struct {
		name string
		size int
		want string
		is   error
	}{
		{"nobody", 64, `key "nobody" is not in the key store`, ErrNotFound},
		{"k", 32, `key "k" has 64 bytes, and the reference says 32`, nil},
		{"gone", 64, `key "gone" has no bytes: its file is not there`, ErrMissing},
	} {
		_, _, err := s.Use(x.name, x.size, config(4096), false)
		if err == nil || err.Error() != x.want || x.is != nil && !errors.Is(err, x.is) {
			t.Errorf("%s: %v; want %s", x.name, err, x.want)
		}
	}
}

func TestAddRefusesAndWipes(t *testing.T) {
	var s Store
	add(t, &s, "k")
	equal := make([]byte, 64)
	weak, err := secret.Copy(equal)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what string
		d    Desc
		b    *secret.Buffer
		want string
	}{
		{"length", Desc{Name: "a", Config: config(4096), Source: "a.key"}, buffer(t, 63, 1), `key "a": a.key has 63 bytes, and AES-256-XTS takes exactly 64`},
		{"name taken", Desc{Name: "k", Config: config(4096)}, buffer(t, 64, 1), `key "k" is in the key store already`},
		{"blank", Desc{Name: "a b", Config: config(4096)}, buffer(t, 64, 1), "is a blank"},
		{"config", Desc{Name: "a", Config: config(1000)}, buffer(t, 64, 1), "data unit size 1000"},
		{"weak", Desc{Name: "a", Config: config(4096)}, weak, blkcrypto.ErrWeakKey.Error()},
	} {
		err := s.Add(x.d, x.b)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v; want %s", x.what, err, x.want)
		}
		if !x.b.Wiped() {
			t.Errorf("%s: the bytes are still there", x.what)
		}
	}
	weak, err = secret.Copy(equal)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add(Desc{Name: "w", Config: config(512), Weak: true}, weak); err != nil {
		t.Errorf("weak key that was asked for: %v", err)
	}
	if _, rel, err := s.Use("w", 64, config(512), true); err != nil {
		t.Errorf("weak use: %v", err)
	} else {
		defer rel(t.Context())
	}
	if _, _, err := s.Use("w", 64, config(512), false); !errors.Is(err, blkcrypto.ErrWeakKey) {
		t.Errorf("use that does not take weak keys: %v, want %v", err, blkcrypto.ErrWeakKey)
	}
}

// blkcrypto.md invariants 21 to 24, dm-fscrypt.md invariants 52, 57.
func TestEvictReceiptNamesEveryPlace(t *testing.T) {
	var s Store
	add(t, &s, "k")
	a, relA := use(t, &s, "k", 4096)
	b, relB := use(t, &s, "k", 512)
	m1, m2, m3 := program(t, a), program(t, a), program(t, b)
	receipt, err := s.Evict(t.Context(), "k", EvictOptions{})
	if err != nil {
		t.Fatal(err)
	}
	slots, store := 0, 0
	for _, p := range receipt.Places {
		switch {
		case p.Err != nil:
			t.Errorf("%s: %v", p.Holder, p.Err)
		case p.Holder == "engine of the test" && p.Detail == "keyslot 0":
			slots++
		case p.Holder == "key store":
			store++
		}
	}
	if slots != 3 || store != 1 {
		t.Errorf("%d keyslots and %d stores on the receipt, want 3 and 1: %+v", slots, store, receipt.Places)
	}
	for _, m := range []*keyslot.Manager{m1, m2, m3} {
		if n := m.Stats().Resident; n != 0 {
			t.Errorf("%d keys are left in an engine", n)
		}
	}
	if _, err := m1.Get(t.Context(), a, false); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
		t.Errorf("use after eviction: %v, want %v", err, blkcrypto.ErrKeyEvicted)
	}
	if _, ok := s.Get("k"); ok {
		t.Error("the key is still listed")
	}
	// Those who still have it give it back without harm to a new key of the name.
	add(t, &s, "k")
	if err := errors.Join(relA(t.Context()), relB(t.Context())); err != nil {
		t.Error(err)
	}
	if _, rel, err := s.Use("k", 64, config(4096), false); err != nil {
		t.Errorf("the new key: %v", err)
	} else {
		rel(t.Context())
	}
}

// slowEngine holds every request until it is told to go on.
type slowEngine struct {
	*soft.Engine
	entered, leave chan struct{}
}

func (e *slowEngine) Crypt(slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	e.entered <- struct{}{}
	<-e.leave
	return e.Engine.Crypt(slot, d, dun, dst, src)
}

func TestEvictWaitsForRequestsUntilItsDeadline(t *testing.T) {
	var s Store
	add(t, &s, "k")
	k, release := use(t, &s, "k", 4096)
	e := &slowEngine{soft.New("slow", 2), make(chan struct{}), make(chan struct{})}
	m := keyslot.New(e)
	done := make(chan error)
	go func() {
		slot, err := m.Get(context.Background(), k, false)
		if err == nil {
			data := block.Bytes(make([]byte, 4096))
			err = slot.Crypt(keyslot.Encrypt, blkcrypto.DUN64(0), data, data)
			slot.Put()
		}
		done <- err
	}()
	<-e.entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	receipt, err := s.Evict(ctx, "k", EvictOptions{})
	if !errors.Is(err, context.DeadlineExceeded) || len(receipt.Places) != 2 || receipt.Places[0].Err == nil {
		t.Fatalf("eviction with a request in flight: %v, %+v; want the deadline, and the slot named", err, receipt.Places)
	}
	if st, ok := s.Get("k"); !ok || !st.Pending {
		t.Errorf("after it: %+v, %v; want listed as pending", st, ok)
	}
	if _, _, err := s.Use("k", 64, config(4096), false); !errors.Is(err, ErrEvicting) {
		t.Errorf("use meanwhile: %v, want %v", err, ErrEvicting)
	}
	if err := s.Add(Desc{Name: "k", Config: config(4096)}, buffer(t, 64, 2)); !errors.Is(err, ErrEvicting) {
		t.Errorf("the name given again meanwhile: %v, want %v", err, ErrEvicting)
	}
	e.leave <- struct{}{}
	if err := <-done; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if _, err := s.Evict(t.Context(), "k", EvictOptions{}); err != nil {
		t.Errorf("second try: %v", err)
	}
	if _, ok := s.Get("k"); ok || m.Stats().Resident != 0 {
		t.Error("the key is still there")
	}
	if err := release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAutoKeyGoesWithItsLastUser(t *testing.T) {
	var s Store
	if err := s.Add(Desc{Name: "auto", Config: config(512), Auto: true}, buffer(t, 64, 1)); err != nil {
		t.Fatal(err)
	}
	_, relA := use(t, &s, "auto", 512)
	_, relB := use(t, &s, "auto", 4096)
	relA(t.Context())
	if _, ok := s.Get("auto"); !ok {
		t.Fatal("gone while it is in use")
	}
	relB(t.Context())
	if _, ok := s.Get("auto"); ok {
		t.Error("still there after its last user")
	}
}

func TestGenerateMakesTheFileOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	b, err := Generate(path, 64)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Wipe()
	if !got.Equal(b.Bytes()) || b.Equal(make([]byte, 64)) {
		t.Error("the file does not hold the key, or the key is zero")
	}
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", i.Mode(), err)
	}
	if _, err := Generate(path, 64); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: %v, want %v", err, fs.ErrExist)
	}
	if _, err := Generate(filepath.Join(path, "k"), 64); err == nil {
		t.Error("a file beneath a file was made")
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".key-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestReadFileRefuses(t *testing.T) {
	dir := t.TempDir()
	empty, large := filepath.Join(dir, "empty"), filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.WriteFile(large, make([]byte, maxKey+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, large, dir, filepath.Join(dir, "absent")} {
		if b, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v; want an error that names it", path, b, err)
		}
	}
}

// dm-fscrypt.md invariant 52: refused while busy, and then nothing is changed.
func TestEvictIfIdle(t *testing.T) {
	var s Store
	idle := EvictOptions{IfIdle: true}
	add(t, &s, "k")
	k, release := use(t, &s, "k", 4096)
	if _, err := s.Evict(t.Context(), "k", idle); !errors.Is(err, blkcrypto.ErrKeyBusy) {
		t.Errorf("a key that a table uses: %v, want %v", err, blkcrypto.ErrKeyBusy)
	}
	if st, _ := s.Get("k"); st.Pending || k.Evicted() {
		t.Errorf("after the refusal: %+v, evicted %v", st, k.Evicted())
	}
	if err := k.Enter(3); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if err := release(short); !errors.Is(err, blkcrypto.ErrKeyBusy) { // the row is gone, its last request is not
		t.Errorf("release: %v, want %v", err, blkcrypto.ErrKeyBusy)
	}
	k.Leave(3)
	if _, err := s.Evict(t.Context(), "k", idle); err != nil || !k.Dead() {
		t.Errorf("an idle key: %v, dead %v", err, k.Dead())
	}
}

func TestEvictWithForceDoesNotWaitForRequests(t *testing.T) {
	var s Store
	add(t, &s, "k")
	k, release := use(t, &s, "k", 4096)
	if err := k.Enter(0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Evict(t.Context(), "k", EvictOptions{Force: true}); err != nil || !k.Dead() {
		t.Errorf("%v, dead %v", err, k.Dead())
	}
	k.Leave(0)
	if err := release(t.Context()); err != nil {
		t.Error(err)
	}
}
