package dataunittest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Generated checks that the committed assembly asm and its declarations stubs,
// in the package's directory, are what the generator in _asm writes. It needs the
// generator's modules, so it runs where KEYWAY_CHECK_GENERATE=1 asks for it.
func Generated(t *testing.T, pkg, asm, stubs string) {
	t.Helper()
	if os.Getenv("KEYWAY_CHECK_GENERATE") != "1" {
		t.Skip("set KEYWAY_CHECK_GENERATE=1 to run the generator")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "run", ".", "-out", filepath.Join(dir, asm), "-stubs", filepath.Join(dir, stubs), "-pkg", pkg)
	cmd.Dir = "_asm"
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generator: %v\n%s", err, out)
	}
	for _, name := range []string{asm, stubs} {
		if !bytes.Equal(body(t, filepath.Join(dir, name)), body(t, name)) {
			t.Errorf("%s differs from what the generator writes: run go generate in %s", name, pkg)
		}
	}
}

// body is the file without its first line, which holds the generator's arguments.
func body(t *testing.T, name string) []byte {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("\n"))
	return rest
}

var zmm = regexp.MustCompile(`\bZ[0-9]+\b`)

// Clears checks that every function of the amd64 assembly asm ends with
// VZEROALL, before which one that uses 512-bit registers has cleared Z16 to Z31:
// registers that are left full reach unwiped memory at the next preemption, and
// the round keys with them. functions is how many there are.
func Clears(t *testing.T, asm string, functions int) {
	t.Helper()
	text, err := os.ReadFile(asm)
	if err != nil {
		t.Fatal(err)
	}
	last, name, returns := "", "", 0
	cleared, wide := map[string]bool{}, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "TEXT "):
			name, wide = strings.Fields(line)[1], false
			clear(cleared)
		case line == "RET":
			returns++
			if last != "VZEROALL" {
				t.Errorf("%s: RET after %q, want VZEROALL", name, last)
			}
			for r := 16; r < 32 && wide; r++ {
				if z := "Z" + string(rune('0'+r/10)) + string(rune('0'+r%10)); !cleared[z] {
					t.Errorf("%s: RET without clearing %s", name, z)
				}
			}
		case zmm.MatchString(line):
			wide = true
			f := strings.Fields(strings.ReplaceAll(line, ",", ""))
			if len(f) == 4 && strings.HasPrefix(f[0], "VPXOR") && f[1] == f[2] && f[2] == f[3] {
				cleared[f[1]] = true
				break
			}
			for _, r := range f[1:] {
				delete(cleared, r)
			}
		}
		if line != "" {
			last = line
		}
	}
	if returns != functions {
		t.Errorf("%d returns in %s, want %d", returns, asm, functions)
	}
}
