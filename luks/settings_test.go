package luks_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"keyway/luks"
	"keyway/test/harness"
)

// small is a LUKS2 volume whose header takes a MiB.
var small = luks.FormatOptions{Key: cheap, KeySize: 32, DataOffset: 1 << 20}

// volume formats a file of 2 MiB and opens it.
func volume(t testing.TB, o luks.FormatOptions) (*os.File, *luks.Editor, *luks.Volume) {
	t.Helper()
	f := image(t, 2<<20)
	e, v, err := luks.Format(context.Background(), f, 2<<20, []byte("first"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Key.Wipe)
	return f, e, v
}

// cryptsetup runs it with what every command needs here.
func cryptsetup(t testing.TB, args ...string) string {
	t.Helper()
	return harness.ToolOK(t, "cryptsetup", append([]string{"-q", "--disable-locks"}, args...)...)
}

// TestSettings: what is set here is what cryptsetup reads, and the other way round.
func TestSettings(t *testing.T) {
	harness.Need(t, "cryptsetup")
	f, e, _ := volume(t, small)
	for _, err := range []error{
		e.SetPriority(0, 2), e.SetLabel("name with ü", "sub"), e.SetUUID("89abcdef-0123-4567-89ab-cdef01234567"),
		e.SetFlags([]string{"allow-discards", "no-read-workqueue"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dump := cryptsetup(t, "luksDump", f.Name())
	for _, want := range []string{"Priority:   prefer", "name with ü", "sub", "89abcdef-0123-4567-89ab-cdef01234567", "allow-discards no-read-workqueue"} {
		if !strings.Contains(dump, want) {
			t.Errorf("luksDump has no %q:\n%s", want, dump)
		}
	}
	for _, c := range []struct {
		what string
		err  error
		want string
	}{
		{"priority 3", e.SetPriority(0, 3), "priority 3"},
		{"priority of no slot", e.SetPriority(1, 1), "keyslot 1"},
		{"long label", e.SetLabel(strings.Repeat("x", 48), ""), "label"},
		{"label with a newline", e.SetLabel("a\nb", ""), "label"},
		{"long subsystem", e.SetLabel("", strings.Repeat("x", 48)), "subsystem"},
		{"UUID", e.SetUUID("x"), "uuid"},
		{"flag", e.SetFlags([]string{"fast"}), `"fast"`},
		{"flag twice", e.SetFlags([]string{"allow-discards", "allow-discards"}), "twice"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.what, c.err, c.want)
		}
	}
	if err := e.SetFlags(nil); err != nil {
		t.Fatal(err)
	}
	if err := e.SetPriority(0, 1); err != nil {
		t.Fatal(err)
	}
	if s := string(e.Header().Metadata()); strings.Contains(s, "flags") || strings.Contains(s, "priority") {
		t.Errorf("what is no more is still there: %s", s)
	}
	cryptsetup(t, "config", "--label", "theirs", "--priority", "ignore", "-S", "0", f.Name())
	h, err := luks.Read(f, 2<<20, luks.Options{})
	if err != nil || h.Label != "theirs" || h.Keyslots[0].Priority != 0 {
		t.Errorf("label %q, priority %d, %v", h.Label, h.Keyslots[0].Priority, err)
	}
	one, e, _ := volume(t, luks.FormatOptions{Version: 1, Key: cheap, KeySize: 16, Cipher: "aes-cbc-plain64"})
	for _, err := range []error{e.SetPriority(0, 2), e.SetLabel("x", ""), e.SetFlags(nil)} {
		if err == nil || !strings.Contains(err.Error(), "LUKS1 has no") {
			t.Errorf("of LUKS1: %v", err)
		}
	}
	if err := e.SetUUID("89abcdef-0123-4567-89ab-cdef01234567"); err != nil {
		t.Fatal(err)
	}
	if s := cryptsetup(t, "luksUUID", one.Name()); strings.TrimSpace(s) != "89abcdef-0123-4567-89ab-cdef01234567" {
		t.Errorf("cryptsetup reads the UUID %q", s)
	}
}

// TestTokens are exchanged with cryptsetup as they are, and survive what else is done.
func TestTokens(t *testing.T) {
	harness.Need(t, "cryptsetup")
	f, e, v := volume(t, small)
	const text = `{"type":"mine","keyslots":["0"],"x":"a/b\u0001\"","n":[1,{"y":true,"z":null}],"ü":-1.5e3}`
	id, err := e.AddToken([]byte(" "+text+"\n"), luks.AnyToken)
	if err != nil || id != 0 {
		t.Fatal(id, err)
	}
	if got := cryptsetup(t, "token", "export", "--token-id", "0", f.Name()); got != text {
		t.Errorf("cryptsetup exports %s", got)
	}
	cryptsetup(t, "token", "add", "--key-description", "there", "--token-id", "5", f.Name())
	if e, err = luks.Edit(f, 2<<20, luks.Options{}); err != nil {
		t.Fatal(err)
	}
	tokens := e.Header().Tokens
	if len(tokens) != 2 || tokens[1].ID != 5 || string(tokens[1].JSON()) != `{"type":"luks2-keyring","keyslots":["0"],"key_description":"there"}` || string(tokens[0].JSON()) != text {
		t.Errorf("tokens %+v", tokens)
	}
	if _, err := e.AddKey(context.Background(), v, []byte("b"), 3, cheap); err != nil {
		t.Fatal(err)
	}
	for _, slot := range []int{3, 3} {
		if err := e.AssignToken(5, slot, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.AssignToken(5, 0, false); err != nil {
		t.Fatal(err)
	}
	if got := e.Header().Tokens[1].Keyslots; !slices.Equal(got, []int{3}) {
		t.Errorf("token 5 is for %v, want 3", got)
	}
	if err := e.KillSlot(3, false); err != nil {
		t.Fatal(err)
	}
	if got := e.Header().Tokens[1].Keyslots; len(got) != 0 {
		t.Errorf("token 5 is for %v, which is not in use any more", got)
	}
	cryptsetup(t, "luksDump", f.Name())
	for _, c := range []struct {
		text string
		id   int
		want string
	}{
		{text, 0, "in use"},
		{text, 32, "0 to 31"},
		{`{}`, 1, "token.type: is missing"},
		{`[]`, 1, "does not begin with {"},
		{`{"type":"x"}`, 1, "tokens.1.keyslots: is missing"},
		{`{"type":"x","keyslots":["7"]}`, 1, "tokens.1.keyslots[0]"},
		{`{"type":"x","keyslots":[],"many":[0` + strings.Repeat(",0", 1<<15) + `]}`, 1, "more than 32768 values"},
		{`{"type":"luks2-other","keyslots":[]}`, 1, "luks2-other"},
		{`{"type":"luks2-keyring","keyslots":[]}`, 1, "key_description"},
		{`{"type":"luks2-keyring","keyslots":[],"key_description":"x","more":1}`, 1, "alone"},
		{`{"type":"x","keyslots":[],"long":"` + strings.Repeat("x", 12<<10) + `"}`, 1, "room for 12288"},
	} {
		if _, err := e.AddToken([]byte(c.text), c.id); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s as %d: %v, want %q in it", c.text, c.id, err, c.want)
		}
	}
	if err := e.RemoveToken(0); err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveToken(0); err == nil {
		t.Error("a token is removed twice")
	}
	for i := 1; ; i++ {
		if _, err := e.AddToken([]byte(`{"type":"x","keyslots":[]}`), luks.AnyToken); err != nil {
			if i != 32 || !errors.Is(err, luks.ErrFull) {
				t.Errorf("token %d: %v", i, err)
			}
			break
		}
	}
}

// TestUnknownMembersSurvive every kind of change.
func TestUnknownMembersSurvive(t *testing.T) {
	ctx := context.Background()
	d := disk(t, "luks2-argon2id")
	dev := d.Image.Bytes(t)
	text := compact(t, dev)
	for _, c := range []struct{ old, to string }{
		{`{"keyslots":{"0":{`, `{"top":{"a":[1,2,{"b":null}]},"keyslots":{"0":{"of slot":"x",`},
		{`"tokens":{}`, `"tokens":{"4":{"type":"t","keyslots":["0","1"],"of token":9007199254740993}}`},
		{`"sector_size":512`, `"sector_size":512,"of segment":true`},
		{`"config":{`, `"config":{"of config":"\/\b\u0007",`},
	} {
		if !strings.Contains(text, c.old) {
			t.Fatalf("no %s in %s", c.old, text)
		}
		text = strings.Replace(text, c.old, c.to, 1)
	}
	f := image(t, int64(len(dev)))
	if _, err := f.WriteAt(withJSON(dev, text), 0); err != nil {
		t.Fatal(err)
	}
	e, err := luks.Edit(f, int64(len(dev)), luks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{e.SetPriority(0, 2), e.SetLabel("l", ""), e.SetFlags([]string{"allow-discards"}), e.KillSlot(1, false)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.ChangeKey(ctx, d.Key(0), []byte("new"), 0, cheap); err != nil {
		t.Fatal(err)
	}
	h, err := luks.Read(f, int64(len(dev)), luks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := string(h.Metadata())
	for _, want := range []string{`"top":{`, `"b":null`, `"of slot":"x"`, `"of token":9007199254740993`, `"of segment":true`, `"of config":"/\b\u0007"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is gone:\n%s", want, got)
		}
	}
}

// TestRepair: either damaged copy is made good again, by itself or with the next change.
func TestRepair(t *testing.T) {
	for bad := range int64(2) {
		for _, how := range []string{"repair", "change"} {
			f, e, v := volume(t, small)
			if n, err := luks.Repair(f, 2<<20, luks.Options{}); n != 0 || err != nil {
				t.Fatalf("a good header is repaired: %d, %v", n, err)
			}
			want := e.Header().Metadata()
			if _, err := f.WriteAt(make([]byte, 5000), bad*copySize); err != nil {
				t.Fatal(err)
			}
			if how == "repair" {
				if n, err := luks.Repair(f, 2<<20, luks.Options{}); n != int(bad)+1 || err != nil {
					t.Fatalf("repaired %d, want %d: %v", n, bad+1, err)
				}
			} else {
				e, err := luks.Edit(f, 2<<20, luks.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if err := e.SetPriority(0, 1); err != nil {
					t.Fatal(err)
				}
			}
			h, err := luks.Read(f, 2<<20, luks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if h.Copies[0].Err != nil || h.Copies[1].Err != nil || h.Copies[0].Epoch != h.Copies[1].Epoch || !bytes.Equal(h.Metadata(), want) {
				t.Errorf("copy %d, %s: %+v", bad+1, how, h.Copies)
			}
			if opened, err := h.Open(context.Background(), f, []byte("first"), 0); err != nil || !v.Key.Equal(opened.Key.Bytes()) {
				t.Errorf("copy %d, %s: %v", bad+1, how, err)
			}
		}
	}
}

// TestNewOwnerIsKept: something else is where the first copy was, and only Repair
// overwrites that.
func TestNewOwnerIsKept(t *testing.T) {
	f, _, v := volume(t, small)
	if _, err := f.WriteAt([]byte("a file system"), 1024); err != nil {
		t.Fatal(err)
	}
	if _, err := luks.Edit(f, 2<<20, luks.Options{}); err != nil {
		t.Errorf("a damaged header is not changed: %v", err)
	}
	if _, err := f.WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := luks.Edit(f, 2<<20, luks.Options{}); err == nil || !strings.Contains(err.Error(), "repair the header first") {
		t.Errorf("what is there now would be overwritten: %v", err)
	}
	if n, err := luks.Repair(f, 2<<20, luks.Options{}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	e, err := luks.Edit(f, 2<<20, luks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if key, err := opens(t, e, f, "first", 0); err != nil || !v.Key.Equal(key) {
		t.Error(err)
	}
}
