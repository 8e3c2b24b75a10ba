package foreign

import (
	"bytes"
	"strings"
	"testing"

	"keyway/test/harness"
)

// Parts of key files are the same bytes to keyway as to cryptsetup, whoever has made the
// keyslot, also where the file is longer than a key file may be.
func TestPartsOfKeyFiles(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	stick := append(bytes.Repeat([]byte{0x5a, 0x00, 0x0a, 0x77}, 9<<18), "the end\n"...)
	file, first, second := b.file("stick", stick), b.file("first", stick[1002:1002+64]), b.file("second", stick[9<<20:])
	part := []string{"--keyfile-offset", "1002", "--keyfile-size", "64"}
	image := b.blank("v.img", 20*miB)
	b.cryptsetup(append(append([]string{"luksFormat", "--type", "luks2", "--key-file", file, image}, part...), kdfLUKS...)...)
	b.OK(append(append([]string{"luks", "add-key", image, "--key-file", file, "--new-key-file", file, "--new-keyfile-offset", "9M"}, part...), kdfLUKS...)...)
	for _, pass := range []string{first, second} {
		if !b.opensTheirs(image, pass) {
			t.Errorf("cryptsetup does not open it with the bytes of %s", pass)
		}
	}
	if !b.opensTheirs(image, file, part...) || !b.opensTheirs(image, file, "--keyfile-offset", "9437184") {
		t.Error("cryptsetup does not open it with parts of the file")
	}
	b.OK(append([]string{"luks", "open", image, "v", "--key-file", file}, part...)...)
	b.OK("remove", "v")
	b.OK("luks", "remove-key", image, "--key-file", file, "--keyfile-offset", "9437184", "--yes")
	if b.opensTheirs(image, second) {
		t.Error("the removed passphrase opens")
	}
	for _, x := range []struct {
		no   string
		code int
		args []string
	}{
		{"has 9437192 bytes, and 64 from byte 9437184 are asked for", 1, []string{"--key-file", file, "--keyfile-offset", "9M", "--keyfile-size", "64"}},
		{"begins at byte 10485760", 1, []string{"--key-file", file, "--keyfile-offset", "10M"}},
		{"more than 8388608", 1, []string{"--key-file", file, "--keyfile-offset", "1"}},
		{"no keyslot opens", 1, []string{"--key-file", file, "--keyfile-offset", "1003", "--keyfile-size", "64"}},
		{`--keyfile-size "0" is no number of bytes`, 2, []string{"--key-file", file, "--keyfile-size", "0"}},
		{`--keyfile-offset "x" is no number of bytes`, 2, []string{"--key-file", file, "--keyfile-offset", "x"}},
		{"--keyfile-size is of a key file or a descriptor, and none is named", 2, []string{"--keyfile-size", "3"}},
	} {
		if r := b.Run(append([]string{"luks", "open", image, "v"}, x.args...)...); r.Code != x.code || !strings.Contains(r.Stderr, x.no) {
			t.Errorf("luks open %q: status %d, %s", x.args, r.Code, r.Stderr)
		}
	}
}
