package essiv

import (
	"crypto/aes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func TestDigestIsSHA256(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= 32; n++ {
		key := dataunittest.Random(r, n)
		want := sha256.Sum256(key)
		dataunittest.Diff(t, "digest", digest(make([]byte, digestRoom), key), want[:])
	}
}

// crypto/sha256 has the digest as words in the machine's order.
func TestDigestStaysInItsMemory(t *testing.T) {
	key := dataunittest.Random(rand.New(rand.NewPCG(1, 2)), 16)
	salt := sha256.Sum256(key)
	words := make([]byte, len(salt))
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(salt[i:]))
	}
	mem := make([]byte, digestRoom)
	dataunittest.Forgets(t, func() { digest(mem, key) }, words, words[16:], salt[:], salt[16:], key)
}

// The stack is neither locked nor wiped. Set-up puts no key there; a call leaves
// neither the key of the initialisation vectors nor these themselves, and no sum of
// plaintext and round key, which is the round key to who knows the plaintext.
func TestStackHoldsNoSecretAfterACall(t *testing.T) {
	const unit, units = 592, 40 // 37 blocks: lines and single blocks
	r := rand.New(rand.NewPCG(1, 2))
	key, plain := dataunittest.Random(r, 16), dataunittest.Random(r, unit*units)
	salt := sha256.Sum256(key)
	secrets := [][]byte{key, append([]byte(nil), salt[:]...)}
	number, err := aes.NewCipher(salt[:])
	if err != nil {
		t.Fatal(err)
	}
	for u := range uint64(units) {
		iv := make([]byte, 16)
		binary.LittleEndian.PutUint64(iv, 7+u)
		number.Encrypt(iv, iv)
		secrets = append(secrets, iv)
	}
	for at := 0; at < len(plain); at += 16 {
		added := make([]byte, 16)
		subtle.XORBytes(added, plain[at:], key)
		secrets = append(secrets, added)
	}
	each(t, func(t *testing.T, name string) {
		dataunittest.Forgets(t, func() {
			c, err := NewWith(name, key, unit)
			if err == nil {
				c.Wipe()
			}
		}, secrets[:2]...)
		c, buf := mustOpen(t, name, key, unit), append([]byte(nil), plain...)
		dataunittest.Forgets(t, func() { c.Encrypt(buf, buf, [2]uint64{7}) }, secrets...)
		dataunittest.Forgets(t, func() { c.Decrypt(buf, buf, [2]uint64{7}) }, secrets...)
	})
}
