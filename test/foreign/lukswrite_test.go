package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/test/fixtures"
	"keyway/test/harness"
)

// ours are the arguments of keyway luks for a derivation that costs nothing: the same
// words as cryptsetup's.
var ours = cheap

// opensTheirs reports whether cryptsetup opens a keyslot with the passphrase in a file.
func (b *luksBench) opensTheirs(image, pass string, more ...string) bool {
	b.t.Helper()
	args := append([]string{"--batch-mode", "open", "--test-passphrase", "--key-file", pass}, more...)
	r := harness.Tool(b.t, "cryptsetup", append(args, image)...)
	if r.Code != 0 && r.Code != 2 { // 2: no keyslot has this passphrase
		b.t.Errorf("cryptsetup open: status %d\n%s", r.Code, r.Stderr)
	}
	return r.Code == 0
}

// What keyway formats is cryptsetup's: it opens, describes, adds and kills keyslots,
// backs up the header and restores it.
func TestWeFormatAndCryptsetupUses(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	second := b.file("second", []byte("another one\nof two lines"))
	for i, x := range []struct {
		typ, kdf, cipher, hash string
		bits, sector           int
	}{
		{"luks2", "argon2id", "aes-xts-plain64", "sha256", 512, 4096},
		{"luks2", "argon2i", "aes-xts-plain64", "sha512", 256, 512},
		{"luks2", "pbkdf2", "aes-cbc-essiv:sha256", "sha384", 256, 2048},
		{"luks2", "pbkdf2", "aes-xts-plain64be", "sha224", 512, 1024},
		{"luks2", "pbkdf2", "aes-cbc-plain64", "sha1", 192, 512},
		{"luks2", "pbkdf2", "aes-xts-benbi", "ripemd160", 512, 512},
		{"luks2", "argon2id", "serpent-xts-plain64", "sha256", 512, 4096},
		{"luks2", "argon2id", "xchacha12,aes-adiantum-plain64", "sha256", 256, 4096},
		{"luks1", "pbkdf2", "aes-xts-plain64", "sha256", 512, 512},
		{"luks1", "pbkdf2", "aes-cbc-essiv:sha256", "sha1", 128, 512},
		{"luks1", "pbkdf2", "aes-cbc-plain", "ripemd160", 256, 512},
	} {
		t.Run(fmt.Sprintf("%s/%s-%d/%d/%s/%s", x.typ, x.cipher, x.bits, x.sector, x.kdf, x.hash), func(t *testing.T) {
			b := b.in(t)
			image := filepath.Join(b.Dir, fmt.Sprint(i, ".img"))
			defer os.Remove(image)
			args := []string{
				"luks", "format", image, "--size", "20M", "--type", x.typ, "--cipher", x.cipher, "--key-size", fmt.Sprint(x.bits),
				"--hash", x.hash, "--sector-size", fmt.Sprint(x.sector), "--key-file", b.pass, "--key-slot", "3",
			}
			// cryptsetup has no cipher but AES without a kernel.
			var material []string
			if !strings.HasPrefix(x.cipher, "aes") {
				material = []string{"--keyslot-cipher", "aes-xts-plain64", "--keyslot-key-size", "512"}
			}
			b.OK(append(append(args, material...), ours[x.kdf]...)...)

			if !b.opensTheirs(image, b.pass, "--key-slot", "3") || b.opensTheirs(image, second) {
				t.Error("cryptsetup opens it with another passphrase, or not with the right one")
			}
			text := b.cryptsetup("luksDump", image)
			name, mode, _ := strings.Cut(x.cipher, "-")
			if !strings.Contains(text, x.cipher) && !(strings.Contains(text, name) && strings.Contains(text, mode)) || !strings.Contains(text, x.hash) {
				t.Errorf("luksDump tells neither cipher nor hash:\n%s", text)
			}
			if x.typ == "luks2" {
				if got, want := b.OK("luks", "dump", image, "--json"), b.cryptsetup("luksDump", "--dump-json-metadata", image); strings.TrimSpace(got) != strings.TrimSpace(want) {
					t.Errorf("dump --json:\n%s\ncryptsetup's:\n%s", got, want)
				}
			}

			b.cryptsetup(append([]string{"luksAddKey", "--key-file", b.pass, "--key-slot", "5", image, second}, append(material, cheap["pbkdf2"]...)...)...)
			backup := filepath.Join(b.Dir, fmt.Sprint(i, ".backup"))
			defer os.Remove(backup)
			b.cryptsetup("luksHeaderBackup", image, "--header-backup-file", backup)
			// Ours kills theirs, theirs kills ours.
			b.OK("luks", "remove-key", image, "--key-file", second, "--yes")
			if b.opensTheirs(image, second) {
				t.Error("a removed passphrase still opens")
			}
			b.OK(append([]string{"luks", "add-key", image, "--key-file", b.pass, "--new-key-file", second}, append(material, ours["pbkdf2"]...)...)...)
			b.cryptsetup("luksKillSlot", image, "3")
			if b.opensTheirs(image, b.pass) || !b.opensTheirs(image, second) {
				t.Error("cryptsetup killed keyslot 3, and another is gone")
			}
			b.cryptsetup("luksHeaderRestore", image, "--header-backup-file", backup)
			for _, x := range []struct{ pass, want string }{{b.pass, "keyslot 3 is gone\n"}, {second, "keyslot 5 is gone\n"}} {
				if got := b.OK("luks", "remove-key", image, "--key-file", x.pass, "--yes", "--last"); got != x.want {
					t.Errorf("of the header that cryptsetup restored: %q, want %q", got, x.want)
				}
			}
		})
	}
}

// Data that we wrote survives cryptsetup's reencryption with another key and cipher,
// and its decryption gives them back as they are.
func TestCryptsetupReencryptsWhatWeWrote(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	content := fixtures.Pattern("mix", 42, dataLUKS)
	format := func(t *testing.T, b *luksBench, name, sector string) (image string, args []string) {
		image, header := filepath.Join(b.Dir, name+".img"), filepath.Join(b.Dir, name+".hdr")
		b.OK(append([]string{
			"luks", "format", image, "--size", fmt.Sprint(dataLUKS), "--header", header, "--sector-size", sector, "--key-file", b.pass,
		}, ours["argon2id"]...)...)
		c := b.open(image, name, "--header", header)
		if c.Size != dataLUKS {
			t.Errorf("size %d, want %d", c.Size, dataLUKS)
		}
		write(t, c, 0, content)
		flush(t, c)
		b.shut(c, name)
		return image, []string{"--header", header}
	}
	offline := []string{"--force-offline-reencrypt", "--resilience", "none", "--key-file", b.pass}
	for i, x := range []struct{ cipher, bits, sector string }{
		{"aes-xts-plain64", "512", "512"}, {"aes-cbc-essiv:sha256", "256", "4096"},
	} {
		t.Run("to "+x.cipher, func(t *testing.T) {
			b := b.in(t)
			name := fmt.Sprint("r", i)
			image, header := format(t, b, name, x.sector)
			before, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			args := append(append([]string{"reencrypt", "--cipher", x.cipher, "--key-size", x.bits}, offline...), header...)
			b.cryptsetup(append(append(args, cheap["pbkdf2"]...), image)...)
			after, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if firstDifference(before, after) < 0 {
				t.Error("nothing was reencrypted")
			}
			c := b.open(image, name, header...)
			if k := firstDifference(read(t, c, 0, dataLUKS), content); k >= 0 {
				t.Errorf("after the reencryption the data differ at byte %d", k)
			}
			b.shut(c, name)
		})
	}
	for _, sector := range []string{"512", "4096"} {
		t.Run("decrypted, "+sector, func(t *testing.T) {
			b := b.in(t)
			image, header := format(t, b, "d"+sector, sector)
			b.cryptsetup(append(append(append([]string{"reencrypt", "--decrypt"}, offline...), header...), image)...)
			got, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if k := firstDifference(got, content); k >= 0 {
				t.Errorf("cryptsetup decrypts %d bytes, which differ at byte %d from the %d that we wrote", len(got), k, len(content))
			}
		})
	}
}
