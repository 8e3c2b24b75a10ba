package cipher

import (
	"encoding/hex"
	"testing"

	"keyway/blkcrypto"
)

// Linux, crypto/testmgr.h, the first vector of essiv(cbc(aes),sha256).
func TestAES128CBCESSIVKnownAnswer(t *testing.T) {
	k, err := hex.DecodeString("06a9214036b8a15b512e03d534120006")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(blkcrypto.AES128CBCESSIV, 16, k)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	b := []byte("Single block msg")
	c.Encrypt(b, b, blkcrypto.DUN64(0x30b49e9d42baaf3d))
	const want = "fa59e75f415665c336ca6b72109f8cd4"
	if have := hex.EncodeToString(b); have != want {
		t.Errorf("ciphertext %s, want %s", have, want)
	}
}
