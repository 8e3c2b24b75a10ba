package hctr2

import (
	"crypto/aes"
	"crypto/subtle"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// What is added to the text of a data unit behind its first block is the stream, which
// nobody who sees the ciphertext may see; no more than the keys.
func TestStackHoldsNoSecretAfterACall(t *testing.T) {
	const unit, units = 1040, 9
	r := rand.New(rand.NewPCG(1, 2))
	key, plain := dataunittest.Random(r, 32), dataunittest.Random(r, unit*units)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	secrets := [][]byte{key[:16], key[16:]}
	for i := range byte(2) { // the hash key, and what is added to the start of streams
		b := make([]byte, blockLen)
		b[0] = i
		block.Encrypt(b, b)
		secrets = append(secrets, b)
	}
	for _, name := range Implementations() {
		t.Run(name, func(t *testing.T) {
			dataunittest.Forgets(t, func() {
				if c, err := NewWith(name, key, unit); err == nil {
					c.Wipe()
				}
			}, secrets...)
			c, secrets := mustOpen(t, name, key, unit), secrets
			buf := make([]byte, len(plain))
			c.Encrypt(buf, plain, [4]uint64{7})
			for u := 0; u < len(plain); u += unit {
				for at := u + blockLen; at < u+unit; at += blockLen {
					s := make([]byte, blockLen)
					subtle.XORBytes(s, plain[at:][:blockLen], buf[at:])
					secrets = append(secrets, s)
				}
			}
			dataunittest.Forgets(t, func() { c.Decrypt(buf, buf, [4]uint64{7}) }, secrets...)
			dataunittest.Forgets(t, func() { c.Encrypt(buf, buf, [4]uint64{7}) }, secrets...)
			tweak := new([TweakSize]byte)
			tweak[0] = 7
			dataunittest.Forgets(t, func() { c.EncryptBytes(buf[:unit], plain[:unit], tweak) }, secrets...)
			mem, block := c.mem, c.block
			c.Wipe()
			c.Wipe()
			if !mem.Wiped() {
				t.Error("what was expanded from the key is left")
			}
			defer func() {
				if recover() == nil {
					t.Error("the single blocks work on after Wipe")
				}
			}()
			block.Encrypt(buf[:16], buf[:16])
		})
	}
}
