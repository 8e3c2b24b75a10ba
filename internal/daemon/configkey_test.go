package daemon

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyway/test/harness"
)

// The example unit is one that systemd takes, and what its head says of the
// configuration is one.
func TestExampleUnit(t *testing.T) {
	harness.Need(t, "systemd-analyze")
	unit, err := os.ReadFile("../../doc/keyway.service")
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(unit), "the configuration says\n#\n")
	example, _, _ = strings.Cut(example, "[Unit]")
	c, err := ParseConfig([]byte(strings.ReplaceAll(example, "#   ", "")), "unit", "/etc/keyway")
	if err != nil || !found || len(c.Keys) != 1 || c.Keys[0].Source.String() != "systemd:disk0" {
		t.Fatalf("its configuration: %+v, %v", c, err)
	}
	credential := []byte("LoadCredentialEncrypted=" + c.Keys[0].Source.Place + ":")
	if !bytes.Contains(unit, credential) {
		t.Errorf("the unit has no %s", credential)
	}
	// The program has to be there.
	path := filepath.Join(t.TempDir(), "keyway.service")
	if err := os.WriteFile(path, bytes.Replace(unit, []byte("/usr/bin/keyway"), []byte("/bin/true"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path).CombinedOutput(); err != nil || bytes.Contains(out, []byte(path)) {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

// What doc/keys.md says about configurations is taken.
func TestExamplesOfKeySources(t *testing.T) {
	doc, err := os.ReadFile("../../doc/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for block := range strings.SplitSeq(string(doc), "\n\n") {
		var text strings.Builder
		for line := range strings.Lines(block) {
			text.WriteString(strings.TrimPrefix(line, "    "))
		}
		src := strings.Replace(text.String(), "SOURCE", "systemd:x", 1)
		switch first, _, _ := strings.Cut(src, ":"); {
		case !strings.HasPrefix(block, "    "):
		case strings.HasPrefix(src, "["):
			if _, err := ParseConfig([]byte(src), "keys.md", "/etc"); err != nil {
				t.Errorf("%s\n%v", src, err)
			}
			n++
		case first == "file" || first == "age":
			for line := range strings.Lines(src) {
				if _, err := ParseConfig([]byte("[key.x]\nmode = \"AES-256-XTS\"\nsource = '"+strings.TrimSpace(line)+"'\n"), "keys.md", "/etc"); err != nil {
					t.Error(err)
				}
				n++
			}
		}
	}
	if n < 7 {
		t.Errorf("%d examples: some are not seen", n)
	}
}
