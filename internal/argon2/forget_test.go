package argon2

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/internal/secret"
	"keyway/internal/secret/secrettest"
)

// A countdown is done when it has been asked n times.
type countdown struct {
	context.Context
	left chan struct{}
}

func newCountdown(n int) *countdown {
	c := &countdown{context.Background(), make(chan struct{}, n)}
	for range n {
		c.left <- struct{}{}
	}
	return c
}

func (c *countdown) Err() error {
	select {
	case <-c.left:
		return nil
	default:
		return context.Canceled
	}
}

// watch has f called with each matrix that is about to be unmapped.
func watch(t *testing.T, f func(memory []byte)) {
	wiped = f
	t.Cleanup(func() { wiped = nil })
}

func TestMatrixIsWipedHoweverItEnds(t *testing.T) {
	seen, dirty := 0, 0
	watch(t, func(m []byte) {
		seen++
		if !bytes.Equal(m, make([]byte, len(m))) {
			dirty++
		}
	})
	for _, p := range []Params{{Argon2id, 2, 100, 3}, {Argon2i, 1, 3 * every, 1}} {
		whole := false
		for n := 0; n < 40 && !whole; n++ {
			dst := bytes.Repeat([]byte{1}, 32)
			err := Key(newCountdown(n), dst, []byte("passphrase"), []byte("somesalt"), p)
			whole = err == nil
			if !whole && (!errors.Is(err, context.Canceled) || !bytes.Equal(dst, make([]byte, 32))) {
				t.Fatalf("cancelled at check %d: %v, key %x", n, err, dst)
			}
		}
		if !whole {
			t.Errorf("%+v: never whole", p)
		}
	}
	if seen < 10 || dirty > 0 {
		t.Errorf("%d matrices unmapped, %d of them not wiped", seen, dirty)
	}
}

func TestCancelledBeforeItBegins(t *testing.T) {
	watch(t, func([]byte) { t.Error("there was a matrix") })
	if err := Key(newCountdown(0), make([]byte, 32), nil, nil, Params{Argon2id, 1, 8, 1}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBadParametersAreErrors(t *testing.T) {
	for _, p := range []Params{
		{0, 1, 64, 1}, {3, 1, 64, 1}, {Argon2id, 0, 64, 1}, {Argon2id, -1, 64, 1}, {Argon2id, 1 << 32, 64, 1},
		{Argon2id, 1, 7, 1}, {Argon2id, 1, 31, 4}, {Argon2id, 1, 1 << 32, 1}, {Argon2id, 1, 64, 0}, {Argon2id, 1, 1 << 20, 256},
		{Argon2id, 1, 1<<32 - 1, 1}, // 4 TiB
	} {
		if p.Memory == 1<<32-1 {
			var r unix.Rlimit
			if unix.Getrlimit(unix.RLIMIT_AS, &r) == nil && r.Cur > 1<<42 {
				continue // the kernel may well promise it
			}
		}
		if err := Key(context.Background(), make([]byte, 32), nil, nil, p); err == nil {
			t.Errorf("%+v: no error", p)
		}
	}
	for _, n := range []int{0, 3} {
		if err := Key(context.Background(), make([]byte, n), nil, nil, Params{Argon2id, 1, 8, 1}); err == nil {
			t.Errorf("a key of %d bytes: no error", n)
		}
	}
}

// vmFlags returns what the kernel says of the mapping that has the address.
func vmFlags(t *testing.T, at uintptr) []string {
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(smaps)) {
		var lo, hi uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &lo, &hi); n == 2 {
			inside = at >= lo && at < hi
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("no mapping has %#x", at)
	return nil
}

func TestMatrixIsInNoDumpAndNoChild(t *testing.T) {
	seen := false
	watch(t, func(m []byte) {
		for i, at := range []uintptr{uintptr(unsafe.Pointer(&m[0])), uintptr(unsafe.Pointer(&m[len(m)-1]))} {
			flags := vmFlags(t, at)
			for _, want := range []string{"dd", "wf", "rd", "wr"} { // MADV_DONTDUMP, MADV_WIPEONFORK
				if !slices.Contains(flags, want) {
					t.Errorf("its flags are %v, want %s", flags, want)
				}
			}
			// Beyond either end there is nothing to be read.
			if next := vmFlags(t, at+[]uintptr{^uintptr(0), 1}[i]); slices.Contains(next, "rd") {
				t.Errorf("the pages beside it have flags %v", next)
			}
		}
		seen = true
	})
	if err := Key(context.Background(), make([]byte, 32), nil, nil, Params{Argon2id, 1, 8 << 10, 1}); err != nil {
		t.Fatal(err)
	}
	if !seen {
		t.Error("no matrix was seen")
	}
}

// Half of the limit is for keys.
func TestMatrixIsLockedAsFarAsTheLimitAllows(t *testing.T) {
	out := secrettest.WithLimit(t, 4<<20, func() {
		for _, kib := range []int{1 << 10, 3 << 10} {
			watch(t, func(m []byte) {
				fmt.Printf("%d locked %v\n", kib, slices.Contains(vmFlags(t, uintptr(unsafe.Pointer(&m[0]))), "lo"))
			})
			if err := Key(context.Background(), make([]byte, 32), nil, nil, Params{Argon2id, 1, kib, 1}); err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, want := range []string{"1024 locked true", "3072 locked false"} {
		if !strings.Contains(out, want) {
			t.Errorf("printed %q, want %q", out, want)
		}
	}
}

// The test program is also the process whose memory is looked through.
func TestMain(m *testing.M) {
	if role := os.Getenv("ARGON2_TEST_ROLE"); role != "" {
		beDeriver(role)
		return
	}
	os.Exit(m.Run())
}

const scanPassphrase = "what is looked for in the memory of a process"

var (
	scanSalt   = []byte("salt for the scan")
	scanParams = Params{Argon2id, 2, 1 << 10, 2}
)

// beDeriver reads a passphrase, derives a key, says so, waits for a byte, wipes both,
// says so, and waits again.
func beDeriver(role string) {
	must := func(err error) {
		if err != nil {
			fmt.Println("deriver:", err)
			os.Exit(1)
		}
	}
	secret.SetPolicy(secret.MlockOnly) // hidden memory could not be looked at
	if role == "generic" {
		setAVX2(false)
	}
	pass, err := secret.New(len(scanPassphrase))
	must(err)
	key, err := secret.New(64)
	must(err)
	for n := 0; n < pass.Len(); {
		m, err := os.Stdin.Read(pass.Bytes()[n:])
		must(err)
		n += m
	}
	must(Key(context.Background(), key.Bytes(), pass.Bytes(), scanSalt, scanParams))
	one := make([]byte, 1)
	fmt.Println("derived")
	os.Stdin.Read(one)
	pass.Wipe()
	key.Wipe()
	fmt.Println("wiped")
	os.Stdin.Read(one)
}

func TestProcessForgetsWhatItDerived(t *testing.T) {
	m, err := newMatrix(scanParams)
	if err != nil {
		t.Fatal(err)
	}
	defer m.wipe()
	var s scratch
	m.scratch = make([]laneScratch, scanParams.Lanes)
	in := inputs{passphrase: []byte(scanPassphrase), salt: scanSalt}
	m.begin(&s, 64, in)
	words := map[string][]byte{"passphrase": in.passphrase, "H0": bytes.Clone(s.first[:16]), "end of H0": bytes.Clone(s.first[40:64])}
	part := func(name string, b *block) {
		for _, at := range []int{0, 32, 496, 1008} {
			words[fmt.Sprintf("%s, byte %d", name, at)] = bytes.Clone(bytesOf(b)[at : at+16])
		}
	}
	for lane := range scanParams.Lanes {
		for i := range 2 {
			part(fmt.Sprintf("block %d of lane %d", i, lane), m.at(lane, i))
		}
	}
	if err := m.fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 64)
	m.end(&s, key)
	words["key"], words["middle of the key"] = key[:16], key[30:46]
	part("sum of the last blocks", &s.block)
	part("last block", m.at(0, m.lane-1))

	for _, role := range []string{"default", "generic"} {
		t.Run(role, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{"ARGON2_TEST_ROLE=" + role}
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
			fmt.Fprint(in, scanPassphrase)
			lines := bufio.NewScanner(out)
			expect := func(want string) {
				t.Helper()
				if lines.Scan(); lines.Text() != want {
					t.Fatalf("deriver said %q, want %q", lines.Text(), want)
				}
			}
			expect("derived")
			for name, n := range secrettest.Count(t, cmd.Process.Pid, words) {
				want := 0
				if strings.Contains(name, "key") || name == "passphrase" {
					want = 1 // in key memory: so the scan is not blind
				}
				if n != want {
					t.Errorf("after the derivation: %s is %d times in memory, want %d", name, n, want)
				}
			}
			fmt.Fprintln(in)
			expect("wiped")
			for name, n := range secrettest.Count(t, cmd.Process.Pid, words) {
				if n != 0 {
					t.Errorf("after wiping: %s is %d times in memory", name, n)
				}
			}
		})
	}
}
