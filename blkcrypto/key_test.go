package blkcrypto

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"keyway/internal/secret"
)

func buffer(t testing.TB, n int, fill func(i int) byte) *secret.Buffer {
	t.Helper()
	b, err := secret.New(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Wipe)
	for i := range b.Bytes() {
		b.Bytes()[i] = fill(i)
	}
	return b
}

func counting(i int) byte { return byte(i + 1) }

func testKey(t testing.TB) (*Key, *secret.Buffer) {
	t.Helper()
	b := buffer(t, 64, counting)
	k, err := NewKey("test", Config{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 4096, DUNBytes: 8}, b)
	if err != nil {
		t.Fatal(err)
	}
	return k, b
}

// blkcrypto.md invariant 4: a key takes 1 to IVSize DUN bytes, nothing else.
func TestNewKeyChecksDUNBytesForEachMode(t *testing.T) {
	for _, m := range Modes() {
		for dun := range 34 {
			b := buffer(t, m.KeySize(), counting)
			k, err := NewKey("k", Config{Mode: m, KeyType: Raw, DataUnitSize: 512, DUNBytes: dun}, b)
			want := dun >= 1 && dun <= m.IVSize()
			if (err == nil) != want {
				t.Errorf("%v with %d DUN bytes: %v", m, dun, err)
			}
			if err != nil && !b.Wiped() {
				t.Errorf("%v with %d DUN bytes: the refused key was not wiped", m, dun)
			}
			if err == nil && (k.ID() == 0 || b.Wiped()) {
				t.Errorf("%v with %d DUN bytes: id %d, wiped %v", m, dun, k.ID(), b.Wiped())
			}
		}
	}
	if got := fmt.Sprint(AES256XTS.IVSize(), AES128CBCESSIV.IVSize(), Adiantum.IVSize(), SM4XTS.IVSize()); got != "16 16 32 16" {
		t.Errorf("IV sizes %s, want the kernel's 16 16 32 16", got)
	}
	if got := fmt.Sprint(AES256XTS.KeySize(), AES128CBCESSIV.KeySize(), Adiantum.KeySize(), SM4XTS.KeySize()); got != "64 16 32 32" {
		t.Errorf("key sizes %s, want the kernel's 64 16 32 32", got)
	}
}

func TestNewKeyRefusals(t *testing.T) {
	good := Config{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 4096, DUNBytes: 8}
	with := func(f func(c *Config)) Config { c := good; f(&c); return c }
	for _, c := range []struct {
		name string
		c    Config
		n    int
		ok   bool
	}{
		{"good", good, 64, true},
		{"by sector", with(func(c *Config) { c.Numbering = BySector }), 64, true},
		{"no mode", with(func(c *Config) { c.Mode = 0 }), 64, false},
		{"mode beyond", with(func(c *Config) { c.Mode = numModes }), 64, false},
		{"no key type", with(func(c *Config) { c.KeyType = 0 }), 64, false},
		{"key type beyond", with(func(c *Config) { c.KeyType = 3 }), 64, false},
		{"numbering beyond", with(func(c *Config) { c.Numbering = 2 }), 64, false},
		{"unit 0", with(func(c *Config) { c.DataUnitSize = 0 }), 64, false},
		{"unit 256", with(func(c *Config) { c.DataUnitSize = 256 }), 64, false},
		{"unit 513", with(func(c *Config) { c.DataUnitSize = 513 }), 64, false},
		{"unit 3072", with(func(c *Config) { c.DataUnitSize = 3072 }), 64, false},
		{"unit 65536", with(func(c *Config) { c.DataUnitSize = 65536 }), 64, true},
		{"unit 131072", with(func(c *Config) { c.DataUnitSize = 131072 }), 64, false},
		{"unit negative", with(func(c *Config) { c.DataUnitSize = -4096 }), 64, false},
		{"short", good, 63, false},
		{"long", good, 65, false},
		{"half", good, 32, false},
		{"wrapped, too short", with(func(c *Config) { c.KeyType = HWWrapped }), 31, false},
		{"wrapped, shortest", with(func(c *Config) { c.KeyType = HWWrapped }), 32, true},
		{"wrapped, longest", with(func(c *Config) { c.KeyType = HWWrapped }), MaxWrapped, true},
		{"wrapped, too long", with(func(c *Config) { c.KeyType = HWWrapped }), MaxWrapped + 1, false},
	} {
		b := buffer(t, c.n, counting)
		k, err := NewKey("disk7", c.c, b)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err != nil {
			if !b.Wiped() {
				t.Errorf("%s: the refused key was not wiped", c.name)
			}
			if !strings.Contains(err.Error(), `"disk7"`) {
				t.Errorf("%s: %q does not name the key", c.name, err)
			}
			continue
		}
		if k.Config() != c.c || k.Name() != "disk7" || !strings.Contains(k.String(), "disk7") {
			t.Errorf("%s: made %v", c.name, k)
		}
	}
}

func TestWeakXTSKeysAreRefused(t *testing.T) {
	for _, m := range Modes() {
		half := m.KeySize() / 2
		c := Config{Mode: m, KeyType: Raw, DataUnitSize: 512, DUNBytes: 8}
		b := buffer(t, m.KeySize(), func(i int) byte { return byte(i%half + 1) })
		_, err := NewKey("weak", c, b)
		if xts := strings.HasSuffix(m.String(), "XTS"); errors.Is(err, ErrWeakKey) != xts || !xts && err != nil {
			t.Errorf("%v with equal halves: %v", m, err)
		}
		b = buffer(t, m.KeySize(), func(i int) byte { return byte(i%half + 1) })
		if _, err := NewDMCryptKey("weak", c, b); err != nil {
			t.Errorf("%v with equal halves for dm-crypt: %v", m, err)
		}
		b = buffer(t, m.KeySize(), func(i int) byte {
			if i == m.KeySize()-1 {
				return 0xff // one byte makes the difference
			}
			return byte(i%half + 1)
		})
		if _, err := NewKey("strong", c, b); err != nil {
			t.Errorf("%v with halves that differ in one byte: %v", m, err)
		}
		// Nobody can look into a wrapped key.
		c.KeyType = HWWrapped
		if _, err := NewKey("wrapped", c, buffer(t, 64, func(int) byte { return 7 })); err != nil {
			t.Errorf("%v, wrapped, of equal bytes: %v", m, err)
		}
	}
}

func TestModeNames(t *testing.T) {
	for _, m := range Modes() {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("ParseMode(%q) = %v, %v", m.String(), got, err)
		}
		if m.Strength() > m.KeySize() || m.Strength() < 16 {
			t.Errorf("%v: strength %d of a key of %d", m, m.Strength(), m.KeySize())
		}
	}
	for _, name := range []string{"", "aes-256-xts", "AES-256-XTS ", "mode(0)"} {
		if _, err := ParseMode(name); err == nil || !strings.Contains(err.Error(), "AES-256-XTS") {
			t.Errorf("ParseMode(%q): %v", name, err)
		}
	}
	if Mode(0).KeySize() != 0 || Mode(99).IVSize() != 0 || Mode(99).Strength() != 0 || Mode(99).String() != "mode(99)" {
		t.Error("a mode that does not exist has sizes")
	}
}

// A place keeps a key until it is evicted from it.
type place struct {
	name   string
	has    atomic.Bool
	fail   atomic.Bool
	calls  atomic.Int64
	before func(ctx context.Context) error
}

func (p *place) EvictKey(ctx context.Context, k *Key) Place {
	p.calls.Add(1)
	out := Place{Holder: p.name, Detail: "keyslot 3"}
	if p.before != nil {
		if out.Err = p.before(ctx); out.Err != nil {
			return out
		}
	}
	if p.fail.Load() {
		out.Err = errors.New("the engine does not answer")
		return out
	}
	p.has.Store(false)
	return out
}

func (p *place) take(t *testing.T, k *Key) {
	t.Helper()
	if err := k.Program(p, func([]byte) error { p.has.Store(true); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestEvictOfAKeyThatWasNeverUsed(t *testing.T) { // blkcrypto.md invariant 23
	k, b := testKey(t)
	e, err := k.Evict(context.Background())
	if err != nil || len(e.Places) != 0 || e.ID != k.ID() || e.Key != "test" {
		t.Errorf("%+v, %v", e, err)
	}
	if !b.Wiped() || !k.Evicted() {
		t.Error("the key is still there")
	}
}

func TestEvictAsksEveryHolderAndIsRetried(t *testing.T) { // blkcrypto.md invariants 21, 24
	k, b := testKey(t)
	places := []*place{{name: "ufs"}, {name: "fallback"}, {name: "crypt"}}
	for range 2 { // told twice, held once
		for _, p := range places {
			p.take(t, k)
		}
	}
	places[1].fail.Store(true)
	e, err := k.Evict(context.Background())
	if err == nil || !strings.Contains(err.Error(), `key "test" is not evicted from fallback`) {
		t.Errorf("an eviction with one failing holder: %v", err)
	}
	if len(e.Places) != 3 || e.Places[0].Holder != "ufs" || e.Places[2].Holder != "crypt" || e.Places[1].Err == nil || e.Places[0].Err != nil {
		t.Errorf("receipt %+v", e)
	}
	if places[0].has.Load() || places[2].has.Load() {
		t.Error("a failing holder kept the others from evicting")
	}
	if b.Wiped() || !k.Evicted() {
		t.Errorf("after a failed eviction: wiped %v, evicted %v; want the bytes for the next try, and no new use", b.Wiped(), k.Evicted())
	}
	if err := k.Program(places[0], func([]byte) error { t.Error("programmed"); return nil }); !errors.Is(err, ErrKeyEvicted) {
		t.Errorf("programming it: %v", err)
	}

	places[1].fail.Store(false)
	e, err = k.Evict(context.Background())
	if err != nil || len(e.Places) != 1 || e.Places[0].Holder != "fallback" {
		t.Errorf("the second try: %+v, %v; want only the holder that was left", e, err)
	}
	if !b.Wiped() {
		t.Error("the key is gone everywhere and its bytes are not wiped")
	}
	e, err = k.Evict(context.Background())
	if err != nil || len(e.Places) != 0 {
		t.Errorf("the third try: %+v, %v; want an empty success", e, err)
	}
	for i, want := range []int64{1, 2, 1} {
		if got := places[i].calls.Load(); got != want {
			t.Errorf("%s was asked %d times, want %d", places[i].name, got, want)
		}
	}
}

func TestHoldersAreRecordedBeforeTheKeyIsTold(t *testing.T) { // dm-fscrypt.md invariant 50
	k, _ := testKey(t)
	p := &place{name: "engine"}
	wrong := errors.New("the engine took half of it")
	if err := k.Program(p, func(b []byte) error {
		if len(b) != 64 || b[0] != 1 || b[63] != 64 {
			t.Errorf("the bytes are %d", len(b))
		}
		p.has.Store(true)
		return wrong
	}); err != wrong {
		t.Errorf("Program: %v", err)
	}
	if _, err := k.Evict(context.Background()); err != nil || p.has.Load() {
		t.Errorf("a place that failed half way was not evicted: %v", err)
	}

	k, _ = testKey(t)
	p = &place{name: "engine"}
	p.take(t, k)
	k.Release(p)
	k.Release(p) // again: nothing
	if e, err := k.Evict(context.Background()); err != nil || len(e.Places) != 0 {
		t.Errorf("a released holder is in the receipt: %+v, %v", e, err)
	}
}

// A place that took the key while its eviction was under way must be evicted
// by it or refused.
func TestProgramBesideEvict(t *testing.T) {
	for range 300 {
		k, _ := testKey(t)
		var wg sync.WaitGroup
		places := make([]*place, 4)
		for i := range places {
			places[i] = &place{name: fmt.Sprint(i)}
			wg.Go(func() {
				// As a keyslot manager: what it programs, it lists first.
				_ = k.Program(places[i], func(b []byte) error {
					if k.Evicted() {
						return ErrKeyEvicted
					}
					return nil
				})
			})
		}
		var e Eviction
		wg.Go(func() { e, _ = k.Evict(context.Background()) })
		wg.Wait()
		held := 0
		for _, p := range places {
			held += int(p.calls.Load())
		}
		if held != len(e.Places) {
			t.Fatalf("%d places were asked, %d are in the receipt", held, len(e.Places))
		}
		for _, p := range places {
			if p.calls.Load() == 0 {
				if err := k.Program(p, func([]byte) error { return nil }); !errors.Is(err, ErrKeyEvicted) {
					t.Fatalf("a place that nobody asked can still have the key: %v", err)
				}
			}
		}
	}
}

func TestEvictionsOfOneKeyRunOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := testKey(t)
		hold := make(chan struct{})
		inside := 0
		p := &place{name: "slow", before: func(ctx context.Context) error {
			inside++
			if inside > 1 {
				t.Error("two evictions at once")
			}
			defer func() { inside-- }()
			select {
			case <-hold:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}
		p.take(t, k)
		first := make(chan error, 1)
		go func() { _, err := k.Evict(context.Background()); first <- err }()
		synctest.Wait()
		if !k.Evicted() {
			t.Error("a new use is possible while the eviction waits")
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		second, third := make(chan error, 1), make(chan error, 1)
		go func() { _, err := k.Evict(ctx); second <- err }()
		go func() { _, err := k.Evict(context.Background()); third <- err }()
		synctest.Wait()
		cancel(cause)
		if err := <-second; !errors.Is(err, cause) {
			t.Errorf("a cancelled eviction: %v", err)
		}
		if len(third) != 0 || b.Wiped() {
			t.Error("an eviction returned before the key was gone")
		}
		close(hold)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := <-third; err != nil || !b.Wiped() {
			t.Errorf("%v, wiped %v", err, b.Wiped())
		}
	})
}

func TestEvictWithACancelledContextIsRetried(t *testing.T) {
	k, b := testKey(t)
	p := &place{name: "busy", before: func(ctx context.Context) error { return context.Cause(ctx) }}
	p.take(t, k)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if _, err := k.Evict(ctx); !errors.Is(err, cause) || b.Wiped() {
		t.Errorf("%v, wiped %v", err, b.Wiped())
	}
	if _, err := k.Evict(context.Background()); err != nil || !b.Wiped() || p.has.Load() {
		t.Errorf("the retry: %v, wiped %v", err, b.Wiped())
	}
}

// R13 of blkcrypto.md: whoever remembers an old key must not take a new one
// for it, even if it is made of the same bytes in the same memory.
func TestKeyIDsAreNeverUsedAgain(t *testing.T) {
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				b, err := secret.New(64)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range b.Bytes() {
					b.Bytes()[i] = counting(i)
				}
				k, err := NewKey("same", Config{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 512, DUNBytes: 8}, b)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[k.ID()] || k.ID() == 0 {
					t.Errorf("id %d is not new", k.ID())
				}
				seen[k.ID()] = true
				mu.Unlock()
				if _, err := k.Evict(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNoTextOfAKeyShowsBytes(t *testing.T) {
	b := buffer(t, 64, func(i int) byte { return "hunter2!"[i%8] + byte(i/32) })
	k, err := NewKey("k", Config{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 512, DUNBytes: 8}, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%s", "%+v", "%#v", "%x", "%q"} {
		if s := fmt.Sprintf(verb, k); strings.Contains(s, "hunter2") || strings.Contains(s, "68756e746572") {
			t.Errorf("%s: %s", verb, s)
		}
	}
	_, err = NewKey("k", Config{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 512, DUNBytes: 99}, b)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}
