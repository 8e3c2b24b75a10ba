package xts

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The committed assembly is what the generator writes. It needs the generator's
// modules, so it runs where KEYWAY_CHECK_GENERATE=1 asks for it.
func TestGenerateChangesNothing(t *testing.T) {
	if os.Getenv("KEYWAY_CHECK_GENERATE") != "1" {
		t.Skip("set KEYWAY_CHECK_GENERATE=1 to run the generator")
	}
	dir := t.TempDir()
	asm, stubs := filepath.Join(dir, "xts_amd64.s"), filepath.Join(dir, "stubs_amd64.go")
	cmd := exec.Command("go", "run", ".", "-out", asm, "-stubs", stubs, "-pkg", "xts")
	cmd.Dir = "_asm"
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generator: %v\n%s", err, out)
	}
	for _, name := range []string{asm, stubs} {
		base := filepath.Base(name)
		if got, want := body(t, name), body(t, base); !bytes.Equal(got, want) {
			t.Errorf("%s differs from what the generator writes: run go generate ./internal/xts", base)
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

// Registers that are left full reach unwiped memory at the next preemption, and
// the round keys with them.
func TestAssemblyClearsVectorRegistersBeforeReturning(t *testing.T) {
	text, err := os.ReadFile("xts_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	last, returns := "", 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "RET" {
			returns++
			if last != "VZEROALL" {
				t.Errorf("RET after %q, want VZEROALL", last)
			}
		}
		last = line
	}
	if returns != 4 {
		t.Errorf("%d functions, want 4", returns)
	}
}
