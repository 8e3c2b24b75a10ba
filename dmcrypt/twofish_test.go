package dmcrypt

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// The paper, appendix B.2, and the first steps of its tables of variable text. The
// naive references and the kernel's disks test all sizes of keys.
func TestTwofishVectors(t *testing.T) {
	for _, c := range []struct{ key, plain, want string }{
		{"00000000000000000000000000000000", "00000000000000000000000000000000", "9f589f5cf6122c32b6bfec2f2ae8c35a"},
		{"0123456789abcdeffedcba98765432100011223344556677", "00000000000000000000000000000000", "cfd1d2e5a9be9cdf501f13b892bd2248"},
		{"0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff", "00000000000000000000000000000000", "37527be0052334b89f0cfccae87cfa20"},
	} {
		key, _ := hex.DecodeString(c.key)
		buf, _ := hex.DecodeString(c.plain)
		plain := bytes.Clone(buf)
		b, err := newTwofish(key)
		if err != nil {
			t.Fatal(err)
		}
		b.Encrypt(buf, buf)
		if got := hex.EncodeToString(buf); got != c.want {
			t.Errorf("key %s: %s, want %s", c.key, got, c.want)
		}
		if b.Decrypt(buf, buf); !bytes.Equal(buf, plain) {
			t.Errorf("key %s: decrypted to %x", c.key, buf)
		}
		b.Wipe()
	}
}

// The tables and round keys stay in their memory: neither set-up nor a block leaves
// two neighbours of them on the stack.
func TestTwofishLeavesNothingOnTheStack(t *testing.T) {
	key := bytes.Repeat([]byte("0123456789abcdef"), 2)
	b, err := newTwofish(key)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	k := b.(*twofishKey)
	var secrets [][]byte
	pair := func(x, y uint32) {
		secrets = append(secrets, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, x), y))
	}
	for i := 0; i < len(k.k); i += 2 {
		pair(k.k[i], k.k[i+1])
	}
	for j := range k.s {
		for i := 0; i < len(k.s[j]); i += 2 {
			pair(k.s[j][i], k.s[j][i+1])
		}
	}
	buf := make([]byte, 64)
	dataunittest.Forgets(t, func() {
		c, err := newTwofish(key)
		if err == nil {
			c.Wipe()
		}
	}, secrets...)
	dataunittest.Forgets(t, func() { b.Encrypt(buf, buf) }, secrets...)
	dataunittest.Forgets(t, func() { b.Decrypt(buf, buf) }, secrets...)
}
