package emul

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/blocktest"
	"keyway/internal/secret"
	"keyway/keyslot"
)

func engine(t *testing.T, text string) *Engine {
	t.Helper()
	s, err := ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	if s.Wrapped() {
		s.Options.Hardware = hardware(t, 1)
	}
	return New(s.Kind, s.Options)
}

func TestConforms(t *testing.T) {
	for _, text := range []string{"ufs", "cqhci", "ufs?slots=1&units=512", "cqhci?slots=3&modes=AES-256-XTS,AES-128-XTS&units=4096&dun-bytes=16", "ufs?slots=4&program-delay=1ms&evict-delay=1ms"} {
		t.Run(text, func(t *testing.T) {
			blocktest.Engine(t, func(t *testing.T) keyslot.Engine { return engine(t, text) })
		})
	}
}

// The limits of blkcrypto.md, section 7.11.
func TestKindsHaveTheLimitsOfTheirControllers(t *testing.T) {
	xts := func(typ blkcrypto.KeyType, unit, dun int) blkcrypto.Config {
		return blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: typ, DataUnitSize: unit, DUNBytes: dun}
	}
	for _, c := range []struct {
		kind    string
		slots   int
		has     []blkcrypto.Config
		hasNot  []blkcrypto.Config
		wrapped bool
	}{
		{"ufs", 32, []blkcrypto.Config{xts(1, 512, 8), xts(1, 4096, 8), xts(2, 4096, 8)},
			[]blkcrypto.Config{xts(1, 1024, 8), xts(1, 4096, 9), {Mode: blkcrypto.Adiantum, KeyType: 1, DataUnitSize: 4096, DUNBytes: 8}}, true},
		{"cqhci", 16, []blkcrypto.Config{xts(1, 512, 4), xts(1, 4096, 4)}, []blkcrypto.Config{xts(1, 512, 5), xts(2, 4096, 4)}, false},
		{"fmp", 0, []blkcrypto.Config{xts(1, 4096, 16)}, []blkcrypto.Config{xts(1, 512, 8), xts(2, 4096, 8)}, false},
	} {
		e := engine(t, c.kind)
		p := e.Profile()
		if e.Slots() != c.slots || (e.Wrapper() != nil) != c.wrapped {
			t.Errorf("%s: %d slots, wrapper %v", c.kind, e.Slots(), e.Wrapper())
		}
		for _, x := range c.has {
			if !p.Supports(x) {
				t.Errorf("%s does not support %v", c.kind, x)
			}
		}
		for _, x := range c.hasNot {
			if p.Supports(x) {
				t.Errorf("%s supports %v", c.kind, x)
			}
		}
	}
}

func TestBadSpecsAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"usf":                             `engine "usf" is none of ufs, cqhci, fmp`,
		"ufs?slot=3":                      `option "slot": does not exist: did you mean "slots"?`,
		"ufs?colour=red":                  "known: slots, modes",
		"ufs?slots=-1":                    `"-1" is not a number from 0 to 65536`,
		"ufs?units=700":                   `"700" is not one of [512 1024`,
		"ufs?modes=ROT13":                 `unknown encryption mode "ROT13"`,
		"ufs?keys=wet":                    `"wet" is not raw or wrapped`,
		"ufs?program-delay=2h":            `"2h" is not a time from 0s to 1m0s`,
		"ufs?fail-evict=2":                `"2" is not a probability`,
		"ufs?fail-evict=NaN":              `"NaN" is not a probability`,
		"ufs?keys=wrapped&modes=Adiantum": "needs mode AES-256-XTS",
		"ufs?seed=x":                      `"x" is not a number`,
	} {
		if _, err := ParseSpec(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	s, err := ParseSpec("cqhci?slots=2&evict-delay=3ms&reset-every=1s&fail-request=0.5&seed=7")
	if err != nil || s.Options.Slots != 2 || s.Options.EvictDelay != 3*time.Millisecond || s.ResetEvery != time.Second ||
		s.Options.FailRequest != 0.5 || s.Options.Seed != 7 || s.Wrapped() {
		t.Errorf("%+v, %v", s, err)
	}
}

func key(t *testing.T, c blkcrypto.Config, seed byte) *blkcrypto.Key {
	t.Helper()
	b := make([]byte, c.Mode.KeySize())
	for i := range b {
		b[i] = seed + byte(i*5)
	}
	s, err := secret.Copy(b)
	if err != nil {
		t.Fatal(err)
	}
	k, err := blkcrypto.NewKey("k", c, s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var unit4k = blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 4}

// encrypt encrypts zeroes with k through m.
func encrypt(t *testing.T, m *keyslot.Manager, k *blkcrypto.Key) ([]byte, error) {
	t.Helper()
	s, err := m.Get(t.Context(), k, false)
	if err != nil {
		return nil, err
	}
	defer s.Put()
	buf := make([]byte, 4096)
	err = s.Crypt(keyslot.Encrypt, blkcrypto.DUN64(3), block.Bytes(buf), block.Bytes(buf))
	return buf, err
}

// A controller without keyslots: requests bring their keys, nothing stays.
func TestWithoutSlotsEachRequestBringsItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ref := keyslot.New(engine(t, "fmp")), keyslot.New(engine(t, "ufs"))
		a, b := key(t, unit4k, 1), key(t, unit4k, 2)
		for range 2 {
			for _, k := range []*blkcrypto.Key{a, b} {
				got, err := encrypt(t, m, k)
				want, err2 := encrypt(t, ref, k)
				if err != nil || err2 != nil || !bytes.Equal(got, want) {
					t.Fatalf("%v, %v: ciphertext %x, want %x", err, err2, got[:8], want[:8])
				}
			}
		}
		if st := m.Stats(); st.Slots != 0 || st.Resident != 0 {
			t.Errorf("%+v between requests", st)
		}
		// An eviction waits for the request that has the key, and no longer.
		s, err := m.Get(t.Context(), a, false)
		if err != nil {
			t.Fatal(err)
		}
		if r := m.Residents(); len(r) != 1 || r[0].ID != a.ID() || r[0].Slot != -1 {
			t.Errorf("residents %v", r)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if e, err := a.Evict(short); !errors.Is(err, context.DeadlineExceeded) || len(e.Places) != 2 {
			t.Errorf("eviction beside a request: %v, %v", e, err)
		}
		done := make(chan error, 1)
		go func() { _, err := a.Evict(context.Background()); done <- err }()
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("the key was evicted under a request")
		}
		buf := make([]byte, 4096)
		if err := s.Crypt(keyslot.Encrypt, blkcrypto.DUN64(3), block.Bytes(buf), block.Bytes(buf)); err != nil {
			t.Errorf("the request that has the key: %v", err)
		}
		if _, err := m.Get(t.Context(), a, false); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
			t.Errorf("another request: %v", err)
		}
		s.Put()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := encrypt(t, m, b); err != nil {
			t.Errorf("the other key: %v", err)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := encrypt(t, m, b); !errors.Is(err, block.ErrClosed) {
			t.Errorf("after close: %v", err)
		}
	})
}

// blkcrypto.md, invariant 20 and race 22 of dm-fscrypt.md: a reset loses all keys,
// and no request meets an engine without its key.
func TestResetLosesAllKeysAndTheManagerBringsThemBack(t *testing.T) {
	e := engine(t, "ufs?slots=2")
	m := keyslot.New(e)
	a, b := key(t, unit4k, 1), key(t, unit4k, 2)
	before, err := encrypt(t, m, a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encrypt(t, m, b); err != nil {
		t.Fatal(err)
	}
	err = m.Reset(func() {
		e.Lose()
		if e.Enabled(0) || e.Enabled(1) {
			t.Error("a slot is enabled after the reset")
		}
		buf := make([]byte, 4096)
		if err := e.Crypt(0, keyslot.Encrypt, blkcrypto.DUN{}, block.Bytes(buf), block.Bytes(buf)); !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("a request for a lost slot: %v", err)
		}
		if !bytes.Equal(buf, make([]byte, 4096)) {
			t.Error("a request that failed wrote data")
		}
	})
	if err != nil || !e.Enabled(0) || !e.Enabled(1) {
		t.Fatalf("%v; enabled %v %v", err, e.Enabled(0), e.Enabled(1))
	}
	if after, err := encrypt(t, m, a); err != nil || !bytes.Equal(after, before) {
		t.Errorf("after the reset: %v", err)
	}
}

// blkcrypto.md, invariant 23: a slot that cannot be cleared is set aside, and the
// eviction says so until it can.
func TestAFailedEvictionQuarantinesTheSlotUntilItSucceeds(t *testing.T) {
	e := engine(t, "ufs?slots=2")
	m := keyslot.New(e)
	a := key(t, unit4k, 1)
	if _, err := encrypt(t, m, a); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("controller is gone")
	e.Fail(gone)
	if r, err := a.Evict(t.Context()); !errors.Is(err, gone) || r.Err() == nil {
		t.Errorf("%v, %v", r, err)
	}
	if st := m.Stats(); st.Quarantined != 1 {
		t.Errorf("%+v", st)
	}
	e.Fail(nil)
	if _, err := a.Evict(t.Context()); err != nil {
		t.Error(err)
	}
	if st := m.Stats(); st.Quarantined != 0 || st.Resident != 0 || e.Enabled(0) {
		t.Errorf("%+v", st)
	}
}

// A fault in the middle of programming leaves a part of the key in a disabled slot:
// the manager empties it, and the request fails instead of passing in clear.
func TestFaultsAreErrorsAndLeaveNoKey(t *testing.T) {
	e := engine(t, "ufs?slots=2&fail-program=1")
	m := keyslot.New(e)
	if _, err := encrypt(t, m, key(t, unit4k, 1)); !errors.Is(err, ErrInjected) {
		t.Errorf("program: %v", err)
	}
	for i := range e.slots {
		if e.slots[i].words != nil {
			t.Errorf("slot %d has a key in its registers", i)
		}
	}
	m = keyslot.New(engine(t, "ufs?fail-request=1"))
	if b, err := encrypt(t, m, key(t, unit4k, 1)); !errors.Is(err, ErrInjected) || !bytes.Equal(b, make([]byte, 4096)) {
		t.Errorf("request: %v", err)
	}
	// The dice are loaded by the seed.
	var runs [2][]bool
	for i := range runs {
		m := keyslot.New(engine(t, "ufs?fail-request=0.5&seed=9"))
		k := key(t, unit4k, 1)
		for range 40 {
			_, err := encrypt(t, m, k)
			runs[i] = append(runs[i], err != nil)
		}
	}
	failed := 0
	for i := range runs[0] {
		if runs[0][i] != runs[1][i] {
			t.Fatal("equal seeds fail differently")
		}
		if runs[0][i] {
			failed++
		}
	}
	if failed < 5 || failed > 35 {
		t.Errorf("%d of 40 failed at probability 0.5", failed)
	}
}

func TestDelaysAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keyslot.New(engine(t, "ufs?program-delay=2ms&request-delay=30us&evict-delay=5ms"))
		k := key(t, unit4k, 1)
		for _, c := range []struct {
			what string
			want time.Duration
			f    func() error
		}{
			{"first request", 2030 * time.Microsecond, func() error { _, err := encrypt(t, m, k); return err }},
			{"second request", 30 * time.Microsecond, func() error { _, err := encrypt(t, m, k); return err }},
			{"eviction", 5 * time.Millisecond, func() error { _, err := k.Evict(t.Context()); return err }},
		} {
			begin := time.Now()
			if err := c.f(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took != c.want {
				t.Errorf("%s took %v, want %v", c.what, took, c.want)
			}
		}
	})
}
