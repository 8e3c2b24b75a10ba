package cipher

import (
	"encoding/hex"
	"testing"

	"keyway/blkcrypto"
)

// Linux, crypto/testmgr.h, the first vector of adiantum(xchacha12,aes).
func TestAdiantumKnownAnswer(t *testing.T) {
	k, err := hex.DecodeString("9eebb2493c1cf5f46a99c2c4dfb1f4dd752057ea2c4fcdb2a53d7b491eabfd0f")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(blkcrypto.Adiantum, 16, k)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	b, err := hex.DecodeString("67c9f23084418e43fbf3b33e79367fe8")
	if err != nil {
		t.Fatal(err)
	}
	c.Encrypt(b, b, blkcrypto.DUN{0xd8f349d2abd463df, 0x0873fa7d60378133, 0x54622fe8806d49d8, 0x8a7f455b39a90eeb})
	const want = "6d32861867860f3f967c9d280d53ec9f"
	if have := hex.EncodeToString(b); have != want {
		t.Errorf("ciphertext %s, want %s", have, want)
	}
}
