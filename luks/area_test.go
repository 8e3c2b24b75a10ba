package luks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/luks"
	"keyway/test/harness"
)

// dataCiphers with the bytes of a key and what encrypts their key material: "" is
// the same.
var dataCiphers = []struct {
	cipher string
	key    int
	area   string
	theirs bool // cryptsetup has it without the kernel
}{
	{"aes-xts-plain64", 32, "", true},
	{"aes-xts-plain64", 64, "", true},
	{"aes-xts-plain", 64, "", true},
	{"aes-cbc-essiv:sha256", 16, "", false},
	{"aes-cbc-essiv:sha256", 32, "", false},
	{"aes-cbc-plain", 32, "", true},
	{"aes-cbc-plain64", 24, "", true},
	{"aes-cbc-plain64be", 32, "", true},
	{"aes-cbc-benbi", 32, "", true},
	{"aes-cbc-eboiv", 32, "", true},
	{"aes-cbc-null", 32, "", false},
	{"aes-ecb", 32, "", true},
	{"serpent-xts-plain64", 64, "", false},
	{"serpent-cbc-essiv:sha256", 32, "", false},
	{"serpent-cbc-plain64", 16, "", false},
	{"twofish-xts-plain64", 64, "", false},
	{"twofish-cbc-plain", 32, "", false},
	{"twofish-cbc-essiv:sha256", 32, "", false},
	{"sm4-xts-plain64", 32, "", false},
	{"sm4-cbc-plain64", 16, "", false},
	{"xchacha12,aes-adiantum-plain64", 32, "", false},
	{"xchacha20,aes-adiantum-plain64", 32, "", false},
	{"aes:64-cbc-lmk", 65 * 16, "aes-xts-plain64", false},
	{"aes-cbc-tcw", 32 + 32, "aes-xts-plain64", false},
	{"aes-cbc-elephant", 64, "aes-xts-plain64", false},
	{"capi:xts(aes)-plain64", 64, "aes-xts-plain64", false},
	{"capi:cbc(serpent)-plain64", 32, "aes-xts-plain64", false},
}

// TestEveryCipher: key material under all ciphers that it can have, both ways here,
// and both ways with cryptsetup where it needs no kernel for it (and where it does,
// fixtures show it).
func TestEveryCipher(t *testing.T) {
	harness.Need(t, "cryptsetup")
	ctx := context.Background()
	const size = 20 << 20
	for _, c := range dataCiphers {
		for _, version := range []int{1, 2} {
			name := fmt.Sprintf("LUKS%d %s %d", version, c.cipher, 8*c.key)
			f := image(t, size)
			o := luks.FormatOptions{Version: version, Cipher: c.cipher, KeySize: c.key, Key: cheap}
			if version == 2 && c.key <= 64 {
				o.DataOffset = 1 << 20
			}
			e, v, err := luks.Format(ctx, f, size, []byte("first"), o)
			if version == 1 && c.area != "" {
				if !errors.Is(err, luks.ErrUnsupported) {
					t.Errorf("%s: formatted, and its key material has no cipher: %v", name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			defer v.Key.Wipe()
			k := e.Header().Keyslots[0]
			want := c.area
			if want == "" {
				want = c.cipher
			}
			if k.Area.Encryption != want || k.KeySize != c.key {
				t.Errorf("%s: key material under %s, for %d bytes; want %s", name, k.Area.Encryption, k.KeySize, want)
			}
			if key, err := opens(t, e, f, "first", 0); err != nil || !v.Key.Equal(key) {
				t.Errorf("%s: %v", name, err)
			}
			if !c.theirs && c.area == "" {
				continue
			}
			if err := testPassphrase(t, f, "first", 0); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if c.area != "" {
				continue
			}
			theirs := image(t, size)
			cryptsetup(t, "luksFormat", "--type", fmt.Sprintf("luks%d", version), "--offset", "4096", "-c", c.cipher, "-s", fmt.Sprint(8*c.key),
				"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile(t, "first"), theirs.Name())
			h, err := luks.Read(theirs, size, luks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			w, err := h.Open(ctx, theirs, []byte("first"), 0)
			if err != nil {
				t.Errorf("%s: cryptsetup's: %v", name, err)
				continue
			}
			w.Key.Wipe()
		}
	}
	f := image(t, size)
	for _, c := range []string{"cipher_null-ecb", "capi:ecb(cipher_null)", "null", "rot13-cbc-plain", "aes-gcm-random", "aes-xts"} {
		if _, _, err := luks.Format(ctx, f, size, []byte("x"), luks.FormatOptions{Cipher: c, Key: cheap}); err == nil {
			t.Errorf("%s is formatted", c)
		}
	}
}

// TestReencryptIsAccepted: cryptsetup reencrypts offline what was formatted here, and
// we open what it leaves.
func TestReencryptIsAccepted(t *testing.T) {
	harness.Need(t, "cryptsetup")
	f, e, v := volume(t, small)
	uuid := e.Header().UUID
	harness.ToolOK(t, "cryptsetup", "reencrypt", "-q", "--disable-locks", "--force-offline-reencrypt", "--resilience", "none", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile(t, "first"), f.Name())
	e, err := luks.Edit(f, 2<<20, luks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := opens(t, e, f, "first", luks.AnySlot)
	if err != nil || v.Key.Equal(key) || e.Header().UUID != uuid {
		t.Errorf("after reencryption: %v, with the old key: %v", err, v.Key.Equal(key))
	}
}

// TestDetached: a header in a file of its own, for us and for cryptsetup.
func TestDetached(t *testing.T) {
	harness.Need(t, "cryptsetup")
	ctx := context.Background()
	data := image(t, 1<<20)
	for _, version := range []int{1, 2} {
		o := luks.FormatOptions{Version: version, Key: cheap, KeySize: 32, Detached: true, DataSize: 1 << 20}
		n, err := o.HeaderSize()
		if err != nil {
			t.Fatal(err)
		}
		f := image(t, n)
		_, v, err := luks.Format(ctx, f, n, []byte("first"), o)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Key.Wipe()
		harness.ToolOK(t, "cryptsetup", "open", "--test-passphrase", "--disable-locks", "--key-file", keyFile(t, "first"), "--header", f.Name(), data.Name())
		e, err := luks.Edit(f, n, luks.Options{Data: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.AddKey(ctx, v, []byte("b"), luks.AnySlot, cheap); err != nil {
			t.Fatal(err)
		}
		table, err := e.Header().Table(v, "disk", 1<<20, ":32:logon:k")
		if err != nil || !strings.HasPrefix(table, "0 2048 crypt aes-xts-plain64 :32:logon:k 0 disk 0") {
			t.Errorf("LUKS%d: table %q, %v", version, table, err)
		}
		// One that cryptsetup made.
		name := filepath.Join(t.TempDir(), "theirs")
		if err := os.WriteFile(name, make([]byte, 4<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		cryptsetup(t, "luksFormat", "--type", fmt.Sprintf("luks%d", version), "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile(t, "first"), "--header", name, data.Name())
		g, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		info, err := g.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if e, err = luks.Edit(g, info.Size(), luks.Options{Data: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.ChangeKey(ctx, []byte("first"), []byte("b"), luks.AnySlot, cheap); err != nil {
			t.Errorf("LUKS%d, header of cryptsetup with %d bytes: %v", version, info.Size(), err)
		}
		if _, err := opens(t, e, g, "b", luks.AnySlot); err != nil {
			t.Error(err)
		}
	}
}

// TestDetachedDataOffset: a header apart from its data lies before the offset of the
// data nevertheless, as cryptsetup demands.
func TestDetachedDataOffset(t *testing.T) {
	harness.Need(t, "cryptsetup")
	data := image(t, 4<<20)
	for _, off := range []int64{4096, 32 << 10, 320 << 10, 1 << 20} {
		o := luks.FormatOptions{Key: cheap, KeySize: 64, Detached: true, DataSize: 4 << 20, DataOffset: off}
		n, err := o.HeaderSize()
		if off < 320<<10 {
			if err == nil || !strings.Contains(err.Error(), "data offset") {
				t.Errorf("data at %d: %v, want that the header takes more", off, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		f := image(t, n)
		_, v, err := luks.Format(t.Context(), f, n, []byte("first"), o)
		if err != nil {
			t.Fatal(err)
		}
		v.Key.Wipe()
		harness.ToolOK(t, "cryptsetup", "open", "--test-passphrase", "--disable-locks", "--key-file", keyFile(t, "first"), "--header", f.Name(), data.Name())
	}
	dev := disk(t, "luks2-argon2id").Image.Bytes(t)
	over := withJSON(dev, strings.Replace(compact(t, dev), `"offset":"1048576"`, `"offset":"163840"`, 1))
	if _, err := luks.Read(bytes.NewReader(over), int64(len(over)), luks.Options{Data: -1}); err == nil || !strings.Contains(err.Error(), "segments.0.offset") {
		t.Errorf("data over keyslots, and perhaps elsewhere: %v", err)
	}
}
