package keyslot_test

import (
	"strings"
	"testing"

	"keyway/keyslot"
	"keyway/keyslot/enginetest"
	"keyway/keyslot/soft"
)

// An engine can be asked how it is and told to reset from outside (blkcrypto.md,
// invariant 20: every key is in its slot again when the message is answered).
func TestMessageResetPutsEveryKeyBack(t *testing.T) {
	e := enginetest.New(t, 3)
	m := keyslot.New(e)
	a, b := newKey(t, "a"), newKey(t, "b")
	use(t, m, a)
	use(t, m, b)
	before := e.Calls(enginetest.Program)
	answer, err := m.Message(ctx, []string{"reset"})
	if answer != "" || err != nil {
		t.Fatalf("%q, %v", answer, err)
	}
	if n := e.Calls(enginetest.Program) - before; n != 2 {
		t.Errorf("%d programs in the reset, want one for each of 2 keys", n)
	}
	use(t, m, a)
	use(t, m, b)
	answer, err = m.Message(ctx, []string{"status"})
	want := "3 keyslots, 2 with a key, 0 busy, 0 quarantined\nprograms 4, evictions 0, failures 0, waits 0, resets 1\n"
	if err != nil || !strings.HasSuffix(answer, want) {
		t.Errorf("%q, %v, want ...%q", answer, err, want)
	}
}

func TestMessagesThatAnEngineDoesNotTakeNameThoseItDoes(t *testing.T) {
	cpu := keyslot.New(soft.New("cpu", 1))
	for _, c := range []struct{ words, want string }{
		{"rest", `no message "rest" (there are: status, reset)`},
		{"reset now", "reset takes no arguments"},
		{"status now", "status takes no arguments"},
		{"fail crypt 1", `no message "fail" (there are: status, reset)`},
	} {
		if answer, err := cpu.Message(ctx, strings.Fields(c.words)); err == nil || err.Error() != c.want || answer != "" {
			t.Errorf("%s: %q, %v, want %q", c.words, answer, err, c.want)
		}
	}
	if _, err := keyslot.NewPassthrough(keyslot.Passthrough{Name: "mapped"}).Message(ctx, []string{"reset"}); err == nil {
		t.Error("a manager without an engine took a message")
	}
}
