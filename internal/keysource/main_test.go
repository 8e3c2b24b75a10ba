package keysource

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"keyway/internal/secret"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == HelperCommand {
		os.Exit(HelperMain(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

// tool finds a program or skips; in CI a missing one is a failure.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	if os.Getenv("KEYWAY_CI") == "1" || os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed, and here that is a failure: run scripts/install-tools", name)
	}
	t.Skipf("%s is not installed: scripts/install-tools installs it", name)
	return ""
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// theKey is what all sources of the tests hold.
var theKey = func() []byte {
	b := make([]byte, 64)
	for i := range b {
		b[i] = byte(i*37) ^ 0xa5
	}
	return b
}()

func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func parse(t *testing.T, text string, words ...string) *Source {
	t.Helper()
	s, err := Parse(text, words...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// gives wants the key of a source.
func gives(t *testing.T, e *Env, want []byte, text string, words ...string) {
	t.Helper()
	b, err := parse(t, text, words...).Read(t.Context(), e)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer b.Wipe()
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s: other bytes, %d of them, want %d", text, b.Len(), len(want))
	}
}

// refuses wants an error with the text why, that names the source and has a way out
// with the text way.
func refuses(t *testing.T, e *Env, why, way, text string, words ...string) {
	t.Helper()
	s := parse(t, text, words...)
	b, err := s.Read(t.Context(), e)
	if err == nil {
		b.Wipe()
		t.Fatalf("%s: read, want %q", text, why)
	}
	h, _ := errors.AsType[advised](err)
	if !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "key from "+s.Name()+": ") || !strings.Contains(h.way, way) || (h.way == "") != (way == "") {
		t.Errorf("%s: error %q, way out %q; want %q and %q", text, err, h.way, why, way)
	}
	for _, part := range [][]byte{theKey[:8], theKey[56:], []byte("a55a")} {
		if bytes.Contains([]byte(err.Error()+h.way), part) {
			t.Errorf("%s: the error has a part of the key", text)
		}
	}
}

// answers is an Env in which somebody types the text.
func answers(text string) *Env {
	return &Env{Ask: func(context.Context, string) (*secret.Buffer, error) { return secret.Copy([]byte(text)) }}
}

func copyOf(b []byte) (*secret.Buffer, error) { return secret.Copy(bytes.Clone(b)) }
