package hkdf

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/internal/secret"
)

// The standard library's is the reference: it shares no code.
func TestSameAsStandardLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for n := range 300 {
		in, info, size := random(n), random(rng.IntN(200)), 1+rng.IntN(300)
		k, err := Extract(in)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		for range 2 { // the first call must not spoil the second
			k.Expand(got, info)
		}
		k.Wipe()
		want, err := hkdf.Key(sha512.New, in, make([]byte, 64), string(info), size)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes in, info of %d: got %x, want %x", n, len(info), got, want)
		}
		var sum [hashSize]byte
		if err := SHA512(&sum, in); err != nil {
			t.Fatal(err)
		}
		if want := sha512.Sum512(in); sum != want {
			t.Fatalf("hash of %d bytes: got %x, want %x", n, sum, want)
		}
	}
}

func TestExpandAllThereIs(t *testing.T) {
	k, err := Extract([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Wipe()
	got := make([]byte, MaxOutput)
	k.Expand(got, nil)
	want, err := hkdf.Key(sha512.New, []byte("secret"), nil, "", MaxOutput)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the longest output differs")
	}
	defer func() {
		if recover() == nil {
			t.Error("more output than there is was made")
		}
	}()
	k.Expand(make([]byte, MaxOutput+1), nil)
}

func TestNothingButTheKeyIsKept(t *testing.T) {
	in := []byte("sixteen of bytes")
	k, err := Extract(in)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Wipe()
	check := func(when string, gone []byte) {
		t.Helper()
		if !bytes.Equal(k.work.State(), k.inner) {
			t.Errorf("after %s: the hash's state is still there", when)
		}
		for name, b := range map[string][]byte{"last": k.last, "pad": k.pad} {
			if bytes.Count(b, []byte{0}) != len(b) {
				t.Errorf("after %s: %s is %x", when, name, b)
			}
		}
		for name, b := range map[string][]byte{"states": k.mem.Bytes(), "hash": k.work.State()} {
			if bytes.Contains(b, gone) {
				t.Errorf("after %s: %x is still in the memory of the %s", when, gone, name)
			}
		}
	}
	check("Extract", in)
	out := make([]byte, 200)
	k.Expand(out, []byte("info"))
	check("Expand", out[:16])
	check("Expand", out[128:144])
}

func TestWipe(t *testing.T) {
	k, err := Extract([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	k.Wipe()
	k.Wipe()
	(*Key)(nil).Wipe()
	if !k.mem.Wiped() {
		t.Error("the states are still there")
	}
	defer func() {
		if recover() == nil {
			t.Error("Expand after Wipe gives a key")
		}
	}()
	k.Expand(make([]byte, 16), nil)
}

func TestStackHoldsNoKey(t *testing.T) {
	in := []byte("sixty-four bytes of a master key that nobody else may ever know.")
	var k *Key
	dataunittest.Forgets(t, func() {
		var err error
		if k, err = Extract(in); err != nil {
			t.Error(err)
		}
	}, in[:16], in[16:32], in[48:])
	mem, _ := secret.New(64)
	k.Expand(mem.Bytes(), []byte("info"))
	dataunittest.Forgets(t, func() { k.Expand(mem.Bytes(), []byte("info")) }, mem.Bytes()[:16], mem.Bytes()[48:])
	mem.Wipe()
	k.Wipe()
}
