package dm_test

import (
	"context"
	"strings"
	"testing"

	"keyway/blkcrypto"
)

// line carries out a line of a script outside of one.
func (w *scriptWorld) line(t *testing.T, c scriptCommand, words string) error {
	t.Helper()
	_, err := c(w, &scriptArgs{words: strings.Fields(words)})(t.Context())
	return err
}

// TestScriptsNotice: what every script promises beside its lines is looked at, and by
// other means than the product's books.
func TestScriptsNotice(t *testing.T) {
	small := func(t *testing.T) *scriptWorld {
		w := newScriptWorld(t)
		for words, c := range map[string]scriptCommand{"a 64K engine ufs?slots=2": cmdLeaf, "k": cmdKey} {
			if err := w.line(t, c, words); err != nil {
				t.Fatal(err)
			}
		}
		return w
	}
	// program puts k into a keyslot behind the manager's back.
	program := func(t *testing.T, w *scriptWorld) {
		k := w.keys["k"]
		if err := w.leaves["a"].inner.Program(1, k.key.Config(), k.inline); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, w *scriptWorld) error // what goes wrong
		want string                                   // of it, or of the end; "" if nothing is wrong
	}{
		{"nothing", func(t *testing.T, w *scriptWorld) error {
			return w.line(t, cmdWrite, "a 0 8 text key=k")
		}, ""},
		{"plaintext on a disk", func(t *testing.T, w *scriptWorld) error {
			if err := w.line(t, cmdWrite, "a 0 8 text key=k"); err != nil {
				return err
			}
			return w.line(t, cmdWrite, "a 16 8 text")
		}, "text reached disk a at sector 16 as plaintext"},
		{"other bytes", func(t *testing.T, w *scriptWorld) error {
			if err := w.line(t, cmdWrite, "a 0 8 text key=k dun=3"); err != nil {
				return err
			}
			return w.line(t, cmdMedium, "a 0 8 text key=k dun=4")
		}, "medium: other bytes from sector 0 on"},
		{"an evicted key in an engine", func(t *testing.T, w *scriptWorld) error {
			program(t, w)
			return w.line(t, cmdEvict, "k")
		}, "a's engine still encrypts with key k in keyslot 1"},
		{"a key in the engine of a leaf that is gone", func(t *testing.T, w *scriptWorld) error {
			program(t, w)
			return nil
		}, "a's engine keeps k in keyslot 1 after its disk is gone"},
		{"somebody left behind", func(t *testing.T, w *scriptWorld) error {
			w.jobs["x"] = startScriptJob(func(context.Context) (string, error) { return "", nil })
			return nil
		}, `"x" was never waited for`},
		{"a key of nobody", func(t *testing.T, w *scriptWorld) error {
			stranger := w.newKeyOf("stranger", keyBytes("stranger"), blkcrypto.Config{
				Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8,
			})
			return w.leaves["a"].inner.Program(0, stranger.key.Config(), stranger.inline)
		}, "a's engine keeps a key of nobody in keyslot 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := small(t)
			err := c.do(t, w)
			if end := w.finish(); err == nil {
				err = end
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("noticed %v, want %q", err, c.want)
			}
		})
	}
}
