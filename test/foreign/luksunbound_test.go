package foreign

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/test/harness"
)

// A keyslot that cryptsetup has made unbound holds a key that is not that of the data: it
// is shown, outlives every change, opens nothing, and is told from a wrong passphrase.
func TestUnboundKeyslots(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	image, backup := b.blank("v.img", 20*miB), filepath.Join(b.Dir, "backup")
	own, fresh, later := b.file("own", []byte("of the unbound one")), b.file("fresh", []byte("a new one")), b.file("later", []byte("later still"))
	kept := bytes.Repeat([]byte{0xa5, 0x17, 0x3c, 0x88}, 8)
	b.cryptsetup(append([]string{"luksFormat", "--type", "luks2", "--key-file", b.pass, image}, kdfLUKS...)...)
	b.cryptsetup(append([]string{"luksAddKey", "--unbound", "--key-size", "256", "--volume-key-file", b.file("kept", kept), "--key-slot", "3", image, own}, kdfLUKS...)...)

	is := func(when, pass string) {
		t.Helper()
		out := filepath.Join(b.Dir, "out")
		b.cryptsetup("luksDump", "--unbound", "--key-slot", "3", "--key-file", pass, "--volume-key-file", out, image)
		got, err := os.ReadFile(out)
		if err != nil || !bytes.Equal(got, kept) {
			t.Errorf("%s: the unbound key has changed: %v", when, err)
		}
		os.Remove(out)
		if !strings.Contains(b.OK("luks", "dump", image), "key of 256 bits, priority normal, unbound\n") {
			t.Errorf("%s: dump shows no unbound keyslot", when)
		}
	}
	is("made", own)
	for _, x := range []struct {
		what string
		args []string
	}{
		{"a key added", append([]string{"add-key", image, "--key-file", b.pass, "--new-key-file", fresh}, kdfLUKS...)},
		{"a key changed", append([]string{"change-key", image, "--key-file", fresh, "--new-key-file", later}, kdfLUKS...)},
		{"a priority set", []string{"priority", image, "0", "prefer"}},
		{"a label set", []string{"label", image, "--label", "vault"}},
		{"flags set", []string{"flags", image, "allow-discards"}},
		{"a token added", []string{"token", "add", image, "--json-file", b.file("token", []byte(`{"type":"example","keyslots":["3"]}`))}},
		{"a header kept", []string{"backup", image, backup}},
		{"a key removed", []string{"remove-key", image, "--key-file", later, "--yes"}},
		{"the header restored", []string{"restore", image, backup, "--yes"}},
		{"a keyslot killed", []string{"kill-slot", image, "1", "--yes"}},
	} {
		b.OK(append([]string{"luks"}, x.args...)...)
		is(x.what, own)
	}
	b.shut(b.open(image, "v"), "v")

	// Its passphrase is not of the data, and not wrong either.
	const says = "keyslot 3 opens with this passphrase, but it holds a key of its own, and not that of the data: it is unbound"
	for _, args := range [][]string{
		{"open", image, "v", "--key-file", own},
		append([]string{"add-key", image, "--key-file", own, "--new-key-file", fresh}, kdfLUKS...),
		append([]string{"change-key", image, "--key-file", own, "--new-key-file", fresh}, kdfLUKS...),
		{"remove-key", image, "--key-file", own, "--yes"},
	} {
		if r := b.Run(append([]string{"luks"}, args...)...); r.Code != 1 || !strings.Contains(r.Stderr, says) || !strings.Contains(r.Stderr, "kill-slot removes such a keyslot") {
			t.Errorf("luks %s: status %d, %s", args[0], r.Code, r.Stderr)
		}
	}
	const named = "keyslot 3 holds a key of its own, and not that of the data: it is unbound"
	if r := b.Run("luks", "open", image, "v", "--key-file", own, "--key-slot", "3"); r.Code != 1 || !strings.Contains(r.Stderr, named) {
		t.Errorf("luks open of keyslot 3: status %d, %s", r.Code, r.Stderr)
	}
	if r := b.Run("key", "add", "k", "--mode", "AES-256-XTS", "--from", "luks:"+image+"?key-slot=3&key-file="+own); r.Code != 1 || !strings.Contains(r.Stderr, named) {
		t.Errorf("key add: status %d, %s", r.Code, r.Stderr)
	}
	if r := b.Run("luks", "open", image, "v", "--key-file", later); r.Code != 1 || !strings.Contains(r.Stderr, "no keyslot opens with this passphrase") {
		t.Errorf("a wrong passphrase: status %d, %s", r.Code, r.Stderr)
	}

	// By its number its passphrase is changed, and it is removed, also as the last but one.
	b.OK(append([]string{"luks", "change-key", image, "--key-slot", "3", "--key-file", own, "--new-key-file", fresh}, kdfLUKS...)...)
	is("its passphrase changed", fresh)
	if r := b.Run("luks", "kill-slot", image, "0", "--yes"); r.Code != 1 || !strings.Contains(r.Stderr, "the last keyslot that opens the volume") {
		t.Errorf("the last keyslot of the data: status %d, %s", r.Code, r.Stderr)
	}
	if r := b.Run("luks", "kill-slot", image, "3"); r.Code != 2 || !strings.Contains(r.Stderr, "the key in keyslot 3, which is unbound, will be lost for good") {
		t.Errorf("without --yes: status %d, %s", r.Code, r.Stderr)
	}
	b.OK("luks", "kill-slot", image, "3", "--yes")
	if text := b.cryptsetup("luksDump", image); strings.Contains(text, "unbound") || !b.opensTheirs(image, b.pass) {
		t.Errorf("killed, it is still there, or more than that is gone:\n%s", text)
	}
}

// A header whose digest is of a hash that is not here is not damaged: what it lacks is
// named, by whatever would open it.
func TestHeadersOfUnknownHashesAreRefusedByName(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	for _, x := range []struct{ typ, hash string }{{"luks2", "md5"}, {"luks2", "sha512-256"}, {"luks1", "sha512-256"}} {
		image := b.blank(x.typ+x.hash+".img", 20*miB)
		b.cryptsetup(append([]string{"luksFormat", "--type", x.typ, "--hash", x.hash, "--key-file", b.pass, image}, kdfLUKS...)...)
		want := "hash \"" + x.hash + "\": not supported"
		b.refused(image, want)
		if r := b.Run("luks", "add-key", image, "--key-file", b.pass, "--new-key-file", b.pass); r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s, %s: add-key: status %d, %s", x.typ, x.hash, r.Code, r.Stderr)
		}
		if text := b.OK("luks", "dump", image); !strings.Contains(text, x.hash) || strings.Contains(text, "damaged") {
			t.Errorf("%s, %s: dump:\n%s", x.typ, x.hash, text)
		}
		if r := b.Run("luks", "dump", image, "--header-policy", "strict"); r.Code != 1 || !strings.Contains(r.Stderr, x.hash) {
			t.Errorf("%s, %s: strict: status %d, %s", x.typ, x.hash, r.Code, r.Stderr)
		}
		os.Remove(image)
	}
}
