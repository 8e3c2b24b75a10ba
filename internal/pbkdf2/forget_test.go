package pbkdf2

import (
	"bufio"
	"bytes"
	"context"
	stdhmac "crypto/hmac"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/internal/digest"
	"keyway/internal/secret"
	"keyway/internal/secret/secrettest"
)

const (
	passphrase = "what is looked for in the memory of a process"
	salt       = "salt for the scan"
	iterations = slice + 10
	keySize    = 80
)

// words are what nobody should find: of the passphrase itself, and what saves who
// guesses it the iterations.
func words(t *testing.T, name string) map[string][]byte {
	h, err := newHMAC(name, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	defer h.wipe()
	pads := [2][]byte{bytes.Repeat([]byte{0x36}, 40), bytes.Repeat([]byte{0x5c}, 40)}
	for i := range pads {
		for j := range pads[i] {
			pads[i][j] ^= passphrase[j]
		}
	}
	key := make([]byte, keySize)
	if err := Key(context.Background(), key, []byte(passphrase), []byte(salt), name, iterations); err != nil {
		t.Fatal(err)
	}
	mac := stdhmac.New(func() hash.Hash { h, err := digest.New(name); must(err); return h.Hash }, []byte(passphrase))
	io.WriteString(mac, salt+"\x00\x00\x00\x01")
	w := map[string][]byte{
		"passphrase": []byte(passphrase), "inner pad": pads[0], "outer pad": pads[1], "first digest": mac.Sum(nil)[:16],
		"key": key[:16], "end of the key": key[64:],
	}
	// BLAKE2 keeps the pad until there is more to come.
	fresh, err := digest.New(name)
	must(err)
	defer fresh.Wipe()
	if state := h.inner.State()[:16]; !bytes.Equal(state, fresh.State()[:16]) {
		w["inner state"], w["outer state"] = bytes.Clone(state), bytes.Clone(h.outer.State()[:16])
	} else if !strings.HasPrefix(name, "blake2") {
		t.Errorf("%s: a block leaves its state as it was", name)
	}
	return w
}

// The test program is also the process whose memory is looked through.
func TestMain(m *testing.M) {
	if name := os.Getenv("PBKDF2_TEST_HASH"); name != "" {
		beDeriver(name)
		return
	}
	os.Exit(m.Run())
}

func must(err error) {
	if err != nil {
		fmt.Println("deriver:", err)
		os.Exit(1)
	}
}

// beDeriver reads a passphrase, derives a key, says so, waits for a byte, wipes
// both, says so, and waits again.
func beDeriver(name string) {
	secret.SetPolicy(secret.MlockOnly) // hidden memory could not be looked at
	pass, err := secret.New(len(passphrase))
	must(err)
	key, err := secret.New(keySize)
	must(err)
	_, err = io.ReadFull(os.Stdin, pass.Bytes())
	must(err)
	must(Key(context.Background(), key.Bytes(), pass.Bytes(), []byte(salt), name, iterations))
	one := make([]byte, 1)
	fmt.Println("derived")
	os.Stdin.Read(one)
	pass.Wipe()
	key.Wipe()
	fmt.Println("wiped")
	os.Stdin.Read(one)
}

func TestProcessForgetsWhatItDerived(t *testing.T) {
	for _, name := range digest.Names() {
		t.Run(name, func(t *testing.T) { scan(t, name) })
	}
}

func scan(t *testing.T, name string) {
	words := words(t, name)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"PBKDF2_TEST_HASH=" + name}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	io.WriteString(in, passphrase)
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		if lines.Scan(); lines.Text() != want {
			t.Fatalf("deriver said %q, want %q", lines.Text(), want)
		}
	}
	expect("derived")
	for what, n := range secrettest.Count(t, cmd.Process.Pid, words) {
		want := 0
		if what == "passphrase" || strings.HasSuffix(what, "key") {
			want = 1 // in key memory: so the scan is not blind
		}
		if n != want {
			t.Errorf("after the derivation: the %s is %d times in memory, want %d", what, n, want)
		}
	}
	fmt.Fprintln(in)
	expect("wiped")
	for what, n := range secrettest.Count(t, cmd.Process.Pid, words) {
		if n != 0 {
			t.Errorf("after wiping: the %s is %d times in memory", what, n)
		}
	}
}

func TestStackForgetsWhatWasDerived(t *testing.T) {
	for _, name := range digest.Names() {
		var secrets [][]byte
		for _, w := range words(t, name) {
			secrets = append(secrets, w)
		}
		key, err := secret.New(digest.MaxSize)
		if err != nil {
			t.Fatal(err)
		}
		defer key.Wipe()
		dataunittest.Forgets(t, func() {
			if err := Key(context.Background(), key.Bytes(), []byte(passphrase), []byte(salt), name, iterations); err != nil {
				t.Error(err)
			}
		}, secrets...)
	}
}

// A countdown is done when it has been asked n times; for one goroutine.
type countdown struct {
	context.Context
	n int
}

func (c *countdown) Err() error {
	if c.n--; c.n >= 0 {
		return nil
	}
	return context.Canceled
}

func TestCancelledKeyIsZero(t *testing.T) {
	checks := 0
	for n := 0; ; n++ {
		dst := bytes.Repeat([]byte{1}, 32)
		err := Key(&countdown{context.Background(), n}, dst, []byte(passphrase), []byte(salt), "sha256", 3*slice)
		if err == nil {
			break
		}
		if checks++; !errors.Is(err, context.Canceled) || !bytes.Equal(dst, make([]byte, 32)) {
			t.Fatalf("cancelled at check %d: %v, key %x", n, err, dst)
		}
	}
	if checks < 4 {
		t.Errorf("it looked %d times whether it is cancelled, for %d slices", checks, 3)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dst := bytes.Repeat([]byte{1}, 200)
	if err := Key(ctx, dst, nil, nil, "sha1", 1); !errors.Is(err, context.Canceled) || !bytes.Equal(dst, make([]byte, 200)) {
		t.Errorf("%v, key %x", err, dst)
	}
}

func TestBadParametersAreErrors(t *testing.T) {
	for _, c := range []struct {
		size, n int
		hash    string
	}{{32, 0, "sha256"}, {32, -1, "sha256"}, {32, 1 << 32, "sha256"}, {0, 1, "sha256"}, {32, 1, "md5"}, {32, 1, ""}} {
		if err := Key(context.Background(), make([]byte, c.size), nil, nil, c.hash, c.n); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}

func FuzzEqualsStandardLibrary(f *testing.F) {
	f.Add(uint8(0), []byte("passphrase"), []byte("salt"), uint8(1), uint8(32))
	f.Fuzz(func(t *testing.T, which uint8, pass, salt []byte, n, size uint8) {
		name := digest.Names()[int(which)%len(digest.Names())]
		got := make([]byte, 1+int(size))
		if err := Key(context.Background(), got, pass, salt, name, 1+int(n%20)); err != nil {
			t.Fatal(err)
		}
		if want := std(t, name, pass, salt, 1+int(n%20), len(got)); !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
	})
}
