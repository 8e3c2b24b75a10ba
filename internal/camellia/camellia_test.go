package camellia

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// RFC 3713, appendix A.
func TestEqualsRFC3713(t *testing.T) {
	plain := "0123456789abcdeffedcba9876543210"
	for _, v := range []struct{ key, cipher string }{
		{"0123456789abcdeffedcba9876543210", "67673138549669730857065648eabe43"},
		{"0123456789abcdeffedcba98765432100011223344556677", "b4993401b3e996f84ee5cee7d79b09b9"},
		{"0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff", "9acc237dff16d76c20ef7c919e3a7509"},
	} {
		key, err := hex.DecodeString(v.key)
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewBlocks(key)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Wipe()
		p, err := hex.DecodeString(plain)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 16)
		b.Encrypt(got, p)
		if hex.EncodeToString(got) != v.cipher {
			t.Errorf("%d bytes of key: %x, want %s", len(key), got, v.cipher)
		}
		b.Decrypt(got, got)
		if !bytes.Equal(got, p) {
			t.Errorf("%d bytes of key, decrypted: %x, want %s", len(key), got, plain)
		}
	}
}

// The reference is the other way to do it, by the table of RFC 3713, section 2.4.1.
func TestBlocksEqualNaiveReference(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, size := range []int{16, 24, 32} {
		for n := range 35 {
			key, plain := dataunittest.Random(r, size), dataunittest.Random(r, n*BlockSize)
			want := make([]byte, len(plain))
			for i := 0; i < len(plain); i += BlockSize {
				naive(want[i:], plain[i:], key)
			}
			b, err := NewBlocks(key)
			if err != nil {
				t.Fatal(err)
			}
			what, src := fmt.Sprintf("%d bytes of key, %d blocks", size, n), bytes.Clone(plain)
			got := make([]byte, len(plain)+BlockSize)
			b.Encrypt(got, src)
			dataunittest.Diff(t, what, got, want)
			dataunittest.Diff(t, what+": behind the output", got[len(plain):], make([]byte, BlockSize))
			dataunittest.Diff(t, what+": source", src, plain)
			b.Decrypt(got, want)
			dataunittest.Diff(t, what+": decrypted", got, plain)
			b.Encrypt(src, src)
			dataunittest.Diff(t, what+": in place", src, want)
			b.Decrypt(src, src)
			dataunittest.Diff(t, what+": decrypted in place", src, plain)
			b.Wipe()
		}
	}
}

func TestMisuse(t *testing.T) {
	for _, n := range []int{0, 15, 17, 33, 64} {
		if _, err := NewBlocks(make([]byte, n)); err == nil {
			t.Errorf("key of %d bytes accepted", n)
		}
	}
	b, err := NewBlocks(make([]byte, 24))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		f()
	}
	panics("part of a block", func() { b.Encrypt(buf, buf[:17]) })
	panics("short output", func() { b.Decrypt(buf[:16], buf[:32]) })
	if n := testing.AllocsPerRun(20, func() { b.Encrypt(buf, buf); b.Decrypt(buf, buf) }); n != 0 {
		t.Errorf("%v allocations per call, want 0", n)
	}
	mem := b.mem
	b.Wipe()
	b.Wipe()
	if !mem.Wiped() {
		t.Error("the round keys are left")
	}
	panics("use after Wipe", func() { b.Encrypt(buf, buf) })
}

func BenchmarkBlocks(b *testing.B) {
	for _, n := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, err := NewBlocks(make([]byte, 32))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Wipe()
			buf := make([]byte, n*BlockSize)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				c.Encrypt(buf, buf)
			}
		})
	}
}
