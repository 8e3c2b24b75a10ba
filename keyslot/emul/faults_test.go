package emul

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"keyway/keyslot"
)

func tell(t *testing.T, m *keyslot.Manager, words string) string {
	t.Helper()
	answer, err := m.Message(t.Context(), strings.Fields(words))
	if err != nil {
		t.Fatalf("%s: %v", words, err)
	}
	return answer
}

func TestMessageFailsTheNextCalls(t *testing.T) {
	m := keyslot.New(engine(t, "ufs?slots=2"))
	k := key(t, unit4k, 1)
	want, err := encrypt(t, m, k)
	if err != nil {
		t.Fatal(err)
	}
	if answer := tell(t, m, "fail crypt 2"); answer != "fail crypt next 2" {
		t.Errorf("answer %q", answer)
	}
	for i := range 4 {
		got, err := encrypt(t, m, k)
		if i < 2 && !errors.Is(err, ErrInjected) || i >= 2 && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("request %d after \"fail crypt 2\": %v", i, err)
		}
	}

	// blkcrypto.md, invariant 23: what cannot be evicted is in quarantine.
	tell(t, m, "fail evict 1")
	if _, err := k.Evict(t.Context()); !errors.Is(err, ErrInjected) {
		t.Errorf("eviction: %v", err)
	}
	if s := tell(t, m, "status"); !strings.Contains(s, "1 quarantined") || !strings.Contains(s, "fail program none, evict none, crypt none\n") {
		t.Errorf("status %q", s)
	}
	if _, err := k.Evict(t.Context()); err != nil {
		t.Errorf("second eviction: %v", err)
	}

	tell(t, m, "fail program 1")
	k = key(t, unit4k, 1)
	if _, err := encrypt(t, m, k); !errors.Is(err, ErrInjected) {
		t.Errorf("program: %v", err)
	}
	if got, err := encrypt(t, m, k); err != nil || !bytes.Equal(got, want) {
		t.Errorf("second program: %v", err)
	}
}

func TestMessageReplacesTheRateOfTheOptions(t *testing.T) {
	m := keyslot.New(engine(t, "ufs?fail-request=1"))
	k := key(t, unit4k, 1)
	if s := tell(t, m, "status"); !strings.Contains(s, "crypt 1\n") {
		t.Errorf("status %q", s)
	}
	for _, c := range []struct {
		rate string
		all  bool
	}{{"0", false}, {"1.0", true}, {"0.0", false}} {
		tell(t, m, "fail crypt "+c.rate)
		for range 20 {
			if _, err := encrypt(t, m, k); (err != nil) != c.all {
				t.Errorf("rate %s: %v", c.rate, err)
			}
		}
	}
	tell(t, m, "fail crypt 0.5")
	failed := 0
	for range 100 {
		if _, err := encrypt(t, m, k); err != nil {
			failed++
		}
	}
	if failed < 20 || failed > 80 {
		t.Errorf("%d of 100 requests failed at rate 0.5", failed)
	}
}

func TestMessagesToAnEngineWithoutSlots(t *testing.T) {
	m := keyslot.New(engine(t, "fmp"))
	tell(t, m, "reset")
	tell(t, m, "fail crypt 1")
	if s, want := tell(t, m, "status"), "fmp: no keyslots, 0 keys in use\nresets 1\nfail crypt next 1\n"; s != want {
		t.Errorf("status %q, want %q", s, want)
	}
	if _, err := m.Message(t.Context(), []string{"fail", "evict", "1"}); err == nil || !strings.Contains(err.Error(), "no keyslots to evict") {
		t.Errorf("fail evict: %v", err)
	}
}

func TestBadMessagesAreRefusedAndChangeNothing(t *testing.T) {
	m := keyslot.New(engine(t, "cqhci"))
	before := tell(t, m, "status")
	for words, want := range map[string]string{
		"fail":                  "fail takes a call and how many",
		"fail crypt":            "fail takes a call and how many",
		"fail crypt 1 2":        "fail takes a call and how many",
		"fail read 1":           `no call "read" (there are: program, evict, crypt)`,
		"fail crypt -1":         `"-1" is neither`,
		"fail crypt 1.5":        `"1.5" is neither`,
		"fail crypt -0.0":       `"-0.0" is neither`,
		"fail crypt half":       `"half" is neither`,
		"fail crypt NaN.":       `"NaN." is neither`,
		"fail crypt 1e10":       `"1e10" is neither`,
		"fail crypt 9999999999": `neither`,
		"lose":                  "there are: status, reset, fail program|evict|crypt COUNT|RATE",
	} {
		if _, err := m.Message(t.Context(), strings.Fields(words)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", words, err, want)
		}
	}
	if after := tell(t, m, "status"); after != before {
		t.Errorf("status %q, then %q", before, after)
	}
}
