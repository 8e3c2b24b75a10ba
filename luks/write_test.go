package luks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/luks"
	"keyway/test/harness"
)

// cheap is the least that cryptsetup takes too.
var cheap = luks.KeyOptions{KDF: luks.KDFOptions{Type: "pbkdf2", Iterations: 1000}}

var cheapArgon = luks.KeyOptions{KDF: luks.KDFOptions{Iterations: 4, Memory: 64, CPUs: 1}}

// image makes a file of size bytes.
func image(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// keyFile writes a passphrase for a foreign tool.
func keyFile(t testing.TB, passphrase string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(f, []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// testPassphrase has cryptsetup open a keyslot.
func testPassphrase(t testing.TB, f *os.File, passphrase string, slot int, more ...string) error {
	t.Helper()
	args := append([]string{"open", "--test-passphrase", "--disable-locks", "--key-file", keyFile(t, passphrase), "-S", fmt.Sprint(slot)}, more...)
	r := harness.Tool(t, "cryptsetup", append(args, f.Name())...)
	if r.Code != 0 {
		return fmt.Errorf("cryptsetup ends with %d: %s", r.Code, r.Stderr)
	}
	return nil
}

// opens tells whether we open a keyslot with a passphrase.
func opens(t testing.TB, e *luks.Editor, m luks.Medium, passphrase string, slot int) (key []byte, err error) {
	t.Helper()
	v, err := e.Header().Open(context.Background(), m, []byte(passphrase), slot)
	if err != nil {
		return nil, err
	}
	defer v.Key.Wipe()
	return bytes.Clone(v.Key.Bytes()), nil
}

// TestFormatIsCryptsetups: what is formatted here opens there, says what cryptsetup's
// own says, and takes another key from it.
func TestFormatIsCryptsetups(t *testing.T) {
	harness.Need(t, "cryptsetup")
	const size = 18 << 20
	for _, c := range []struct {
		name string
		o    luks.FormatOptions
		args string // that ask cryptsetup for the same
	}{
		{"defaults", luks.FormatOptions{Key: cheapArgon}, "--pbkdf-force-iterations 4 --pbkdf-memory 64 --pbkdf-parallel 1"},
		{"argon2i", luks.FormatOptions{Key: luks.KeyOptions{KDF: luks.KDFOptions{Type: "argon2i", Iterations: 5, Memory: 128, CPUs: 2}}, Hash: "sha512"}, "--pbkdf argon2i --pbkdf-force-iterations 5 --pbkdf-memory 128 --pbkdf-parallel 2 --hash sha512"},
		{"pbkdf2", luks.FormatOptions{Key: cheap, SectorSize: 512, Label: "a label", Subsystem: "sub", UUID: "01234567-89ab-cdef-0123-456789abcdef"}, "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --sector-size 512 --label a_label --subsystem sub --uuid 01234567-89ab-cdef-0123-456789abcdef"},
		{"cbc", luks.FormatOptions{Key: cheap, Cipher: "aes-cbc-essiv:sha256", KeySize: 32, Slot: 7}, "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 -c aes-cbc-essiv:sha256 -s 256 -S 7"},
		{"sizes", luks.FormatOptions{Key: cheap, MetadataSize: 64 << 10, KeyslotsSize: 1 << 20, KeySize: 32, DataOffset: 4 << 20}, "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --luks2-metadata-size 64k --luks2-keyslots-size 1m -s 256 --offset 8192"},
		{"LUKS1", luks.FormatOptions{Key: cheap, Version: 1}, "--type luks1 --pbkdf-force-iterations 1000"},
		{"LUKS1 cbc", luks.FormatOptions{Key: cheap, Version: 1, Cipher: "aes-cbc-plain64", KeySize: 16, Hash: "sha1", Slot: 6}, "--type luks1 --pbkdf-force-iterations 1000 -c aes-cbc-plain64 -s 128 --hash sha1 -S 6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := image(t, size)
			e, v, err := luks.Format(context.Background(), f, size, []byte("first"), c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Key.Wipe()
			h := e.Header()
			first := h.Keyslots[0].ID
			if err := testPassphrase(t, f, "first", first); err != nil {
				t.Error(err)
			}
			second, err := e.AddKey(context.Background(), v, []byte("second"), luks.AnySlot, cheap)
			if err != nil {
				t.Fatal(err)
			}
			if err := testPassphrase(t, f, "second", second); err != nil {
				t.Error(err)
			}
			if err := testPassphrase(t, f, "second", first); err == nil {
				t.Errorf("the second passphrase opens keyslot %d", first)
			}
			theirs := image(t, size)
			harness.ToolOK(t, "cryptsetup", append([]string{"luksFormat", "-q", "--disable-locks", "--key-file", keyFile(t, "first"), theirs.Name()}, strings.Fields(c.args)...)...)
			w, err := luks.Read(theirs, size, luks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := shape(t, h), shape(t, w); got != want {
				t.Errorf("the metadata is\n%s\ncryptsetup makes\n%s", got, want)
			}
			if h.Label != strings.ReplaceAll(w.Label, "_", " ") || h.Subsystem != w.Subsystem || c.o.UUID != "" && h.UUID != w.UUID || len(h.UUID) != len(w.UUID) || h.Size != w.Size {
				t.Errorf("label %q, subsystem %q, UUID %q and size %d: cryptsetup has %q, %q, %q, %d", h.Label, h.Subsystem, h.UUID, h.Size, w.Label, w.Subsystem, w.UUID, w.Size)
			}
			harness.ToolOK(t, "cryptsetup", "luksAddKey", "-q", "--disable-locks", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile(t, "second"), f.Name(), keyFile(t, "third"))
			e, err = luks.Edit(f, size, luks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			key, err := opens(t, e, f, "third", luks.AnySlot)
			if err != nil || !v.Key.Equal(key) {
				t.Errorf("the key that cryptsetup added: %v", err)
			}
			cryptsetup(t, "luksKillSlot", f.Name(), fmt.Sprint(second))
			if h, err = luks.Read(f, size, luks.Options{}); err != nil || len(h.Keyslots) != 2 {
				t.Errorf("after cryptsetup's luksKillSlot: %d keyslots, %v", len(h.Keyslots), err)
			}
		})
	}
}

// shape is the metadata with the length of what is random instead of it.
func shape(t testing.TB, h *luks.Header) string {
	t.Helper()
	var tree any
	if err := json.Unmarshal(h.Metadata(), &tree); err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, e := range v {
				if s, ok := e.(string); ok && (name == "salt" || name == "digest") {
					v[name] = len(s)
				}
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(tree)
	b, err := json.MarshalIndent(tree, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
