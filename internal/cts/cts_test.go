package cts

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/emmansun/gmsm/sm4"

	ours "keyway/internal/aes"
	"keyway/sm4xts"
	"keyway/test/naive"
)

type wiper interface {
	Block
	Wipe()
}

// both returns a key as the product has it, and as the reference does.
func both(t testing.TB, name string, key []byte) (wiper, cipher.Block) {
	t.Helper()
	if name == "sm4" {
		b, err := sm4xts.NewBlocks(key)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := sm4.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		return b, ref
	}
	b, err := ours.NewBlocks(key)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return b, ref
}

func diff(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}

func TestSameAsLinux(t *testing.T) {
	text, err := os.ReadFile("testdata/kernel.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		n++
		f := strings.Fields(line)
		var v [4][]byte
		for i := range v {
			if v[i], err = hex.DecodeString(f[1+i]); err != nil {
				t.Fatal(err)
			}
		}
		key, iv, plain, want := v[0], [16]byte(v[1]), v[2], v[3]
		b, ref := both(t, strings.Split(f[0], "-")[0], key)
		got := make([]byte, len(plain))
		Encrypt(b, got, plain, &iv)
		diff(t, f[0], got, want)
		Decrypt(b, got, bytes.Clone(got), &iv)
		diff(t, f[0]+" decrypted", got, plain)
		diff(t, f[0]+", reference", naive.CTS(ref, plain, iv, false), want)
		diff(t, f[0]+", reference decrypted", naive.CTS(ref, want, iv, true), plain)
		b.Wipe()
	}
	if n != 50 {
		t.Errorf("%d vectors, want 50", n)
	}
}

// Every length of a file name, in place and not.
func TestSameAsReference(t *testing.T) {
	for _, name := range []string{"aes", "sm4"} {
		b, ref := both(t, name, []byte("0123456789abcdef"))
		iv := [16]byte{1, 2, 3}
		for n := BlockSize; n <= 300; n++ {
			plain := make([]byte, n)
			for i := range plain {
				plain[i] = byte(i * n)
			}
			want := naive.CTS(ref, plain, iv, false)
			got := make([]byte, n)
			Encrypt(b, got, plain, &iv)
			diff(t, name, got, want)
			inPlace := bytes.Clone(plain)
			Encrypt(b, inPlace, inPlace, &iv)
			diff(t, name+" in place", inPlace, want)
			Decrypt(b, inPlace, inPlace, &iv)
			diff(t, name+" decrypted in place", inPlace, plain)
			Decrypt(b, got, want, &iv)
			diff(t, name+" decrypted", got, plain)
		}
		b.Wipe()
	}
}

func TestShortMessagesPanic(t *testing.T) {
	b, _ := both(t, "aes", make([]byte, 16))
	defer b.Wipe()
	for _, crypt := range []func(Block, []byte, []byte, *[16]byte){Encrypt, Decrypt} {
		for _, l := range [][2]int{{15, 15}, {0, 0}, {17, 18}} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%d bytes into %d went through", l[1], l[0])
					}
				}()
				crypt(b, make([]byte, l[0]), make([]byte, l[1]), new([16]byte))
			}()
		}
	}
}
