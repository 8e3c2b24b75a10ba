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

// passLUKS is the passphrase of every volume here.
const passLUKS = "correct horse, battery"

// A bench is a directory with a passphrase file, and a daemon that opens volumes.
type luksBench struct {
	*harness.Daemon
	t    *testing.T
	pass string // file with the passphrase, and nothing behind it
	sock string
}

func newLUKSBench(t *testing.T) *luksBench {
	t.Helper()
	d := harness.Start(t)
	b := &luksBench{Daemon: d, t: t, pass: filepath.Join(d.Dir, "pass"), sock: filepath.Join(d.Dir, "all.sock")}
	b.file("pass", []byte(passLUKS))
	return b
}

// file writes a file and returns its path.
func (b *luksBench) file(name string, content []byte) string {
	b.t.Helper()
	path := filepath.Join(b.Dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// blank makes a file of zeroes.
func (b *luksBench) blank(name string, size int64) string {
	b.t.Helper()
	path := b.file(name, nil)
	if err := os.Truncate(path, size); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// in is the bench for a subtest.
func (b *luksBench) in(t *testing.T) *luksBench {
	c := *b
	c.t = t
	return &c
}

// open opens a volume as device name, and connects to it.
func (b *luksBench) open(image, name string, args ...string) *harness.NBD {
	b.t.Helper()
	b.OK(append([]string{"luks", "open", image, name, "--key-file", b.pass}, args...)...)
	b.OK("export", "add", name, "--nbd", "unix:"+b.sock, "--name", name)
	return dial(b.t, b.sock, name)
}

// shut closes what open opened.
func (b *luksBench) shut(c *harness.NBD, name string) {
	b.t.Helper()
	c.Close()
	b.OK("export", "remove", name)
	b.OK("remove", name)
}

// refused wants that luks open fails and names word.
func (b *luksBench) refused(image, word string, args ...string) {
	b.t.Helper()
	r := b.Run(append([]string{"luks", "open", image, "never", "--key-file", b.pass}, args...)...)
	if r.Code != 1 || !strings.Contains(r.Stderr, word) {
		b.t.Errorf("luks open: status %d, want a refusal that names %q\n%s", r.Code, word, r.Stderr)
	}
}

// cryptsetup runs cryptsetup, which must succeed.
func (b *luksBench) cryptsetup(args ...string) string {
	b.t.Helper()
	return harness.ToolOK(b.t, "cryptsetup", append([]string{"--batch-mode"}, args...)...)
}

// cheap are the arguments of cryptsetup for a derivation that costs nothing.
var cheap = map[string][]string{
	"pbkdf2":   {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"},
	"argon2i":  {"--pbkdf", "argon2i", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "1"},
	"argon2id": {"--pbkdf", "argon2id", "--pbkdf-force-iterations", "5", "--pbkdf-memory", "96", "--pbkdf-parallel", "3"},
}

const dataLUKS = 256 << 10 // bytes of most volumes here

// wantData compares what a device reads as with the pattern of a seed.
func wantData(t *testing.T, c *harness.NBD, seed uint64, n int) {
	t.Helper()
	if c.Size != int64(n) {
		t.Errorf("size %d, want %d", c.Size, n)
	}
	if i := firstDifference(read(t, c, 0, n), fixtures.Pattern("mix", seed, n)); i >= 0 {
		t.Errorf("the data differ at byte %d", i)
	}
}

// hashesLUKS are the hashes that cryptsetup 2.6 offers for both versions, and whether
// keyway has them.
var hashesLUKS = map[string]bool{
	"sha1": true, "sha224": true, "sha256": true, "sha384": true, "sha512": true, "ripemd160": true,
	"whirlpool": true, "sha3-224": true, "sha3-256": true, "sha3-384": true, "sha3-512": true,
	"blake2b-512": true, "blake2s-256": true, "sm3": true,
}

// Data that cryptsetup encrypts, offline and without a kernel, reads as what it was:
// every cipher that it has without a kernel, every sector size and derivation. What
// keyway has not is refused by name.
func TestCryptsetupEncryptsAndWeRead(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	type volume struct {
		cipher string
		bits   int
		sector int
		pbkdf  string
		no     string // why it is refused; "": it is not
	}
	all := []volume{
		{"aes-xts-plain64", 512, 512, "argon2id", ""}, {"aes-xts-plain64", 256, 4096, "argon2i", ""},
		{"aes-xts-plain64", 512, 1024, "pbkdf2", ""}, {"aes-xts-plain64", 512, 2048, "argon2id", ""},
		{"aes-cbc-essiv:sha256", 256, 4096, "argon2id", ""}, {"aes-cbc-essiv:sha256", 128, 512, "pbkdf2", ""},
		{"aes-ctr-plain64", 256, 512, "pbkdf2", "ctr"},
	}
	for i, cipher := range []string{
		"aes-xts-plain", "aes-xts-plain64be", "aes-xts-benbi", "aes-xts-essiv:sha256", "aes-cbc-plain", "aes-cbc-plain64",
		"aes-cbc-benbi", "aes-cbc-eboiv", "aes-cbc-null", "aes-ecb",
	} {
		bits := 256
		if strings.Contains(cipher, "xts") {
			bits = 512
		}
		all = append(all, volume{cipher, bits, 512 << (3 * (i % 2)), "pbkdf2", ""})
	}
	for i, v := range all {
		t.Run(fmt.Sprintf("%s-%d/%d/%s", v.cipher, v.bits, v.sector, v.pbkdf), func(t *testing.T) {
			b := b.in(t)
			name := fmt.Sprint("v", i)
			image := b.file(name+".img", fixtures.Pattern("mix", uint64(i), dataLUKS))
			header := filepath.Join(b.Dir, name+".hdr")
			b.cryptsetup(append([]string{
				"reencrypt", "--encrypt", "--type", "luks2", "--force-offline-reencrypt", "--resilience", "none",
				"--header", header, "--key-file", b.pass, "--cipher", v.cipher, "--key-size", fmt.Sprint(v.bits), "--sector-size", fmt.Sprint(v.sector),
				"--keyslot-cipher", "aes-xts-plain64", "--keyslot-key-size", "512", image,
			}, cheap[v.pbkdf]...)...)
			if v.no != "" {
				b.refused(image, v.no, "--header", header)
				return
			}
			c := b.open(image, name, "--header", header)
			wantData(t, c, uint64(i), dataLUKS)
			b.shut(c, name)
		})
	}
}

// Both versions with every hash that cryptsetup offers, as that of the derivation,
// of the key's splitting and of the digest.
func TestCryptsetupFormatsWithEveryHash(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	n := 0
	for _, typ := range []string{"luks1", "luks2"} {
		for hash, have := range hashesLUKS {
			name := typ + "-" + hash
			image := b.blank(name+".img", 20*miB)
			args := append([]string{"--batch-mode", "luksFormat", "--type", typ, "--hash", hash, "--key-file", b.pass, image}, cheap["pbkdf2"]...)
			if typ == "luks1" && hash == "sha1" {
				args = append(args, "--cipher", "aes-cbc-essiv:sha256", "--key-size", "128")
			}
			if r := harness.Tool(t, "cryptsetup", args...); r.Code != 0 {
				t.Errorf("%s: cryptsetup no longer offers it: %s", name, r.Stderr)
				continue
			}
			if !have {
				b.refused(image, fmt.Sprintf("hash %q", hash))
				continue
			}
			n++
			b.shut(b.open(image, name), name)
			os.Remove(image)
		}
	}
	if n < 28 {
		t.Errorf("%d volumes opened, want at least 28", n)
	}
}
