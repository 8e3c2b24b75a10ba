package dmcrypt

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"
)

// What the kernel's crypto API makes of whole blocks, mode by mode.
func TestModesEqualLinuxCryptoAPI(t *testing.T) {
	file, err := os.Open("testdata/linux-cryptoapi.txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		var b [4][]byte
		for i := range b {
			if b[i], err = hex.DecodeString(strings.TrimPrefix(f[i+1], "-")); err != nil {
				t.Fatal(err)
			}
		}
		key, iv, plain, cipher := b[0], b[1], b[2], b[3]
		p, err := Parse("capi:" + f[0] + "-plain64")
		if err != nil {
			t.Fatal(err)
		}
		c, err := newBulk(p, len(plain), key)
		if err != nil {
			t.Fatal(err)
		}
		n++
		got, s := make([]byte, len(plain)), new(scratch)
		copy(s.iv[:], iv)
		c.encrypt(got, plain, s)
		if !bytes.Equal(got, cipher) {
			t.Errorf("%s, %d bytes of key, %d of text: %x..., the kernel's %x...", f[0], len(key), len(plain), got[:16], cipher[:16])
		}
		copy(s.iv[:], iv)
		c.decrypt(got, got, s)
		if !bytes.Equal(got, plain) {
			t.Errorf("%s, %d bytes of key, %d of text, decrypted: %x..., the kernel's %x...", f[0], len(key), len(plain), got[:16], plain[:16])
		}
		c.wipe()
	}
	if n != 68 {
		t.Errorf("%d vectors, want 68", n)
	}
}
