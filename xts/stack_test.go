package xts

import (
	"crypto/aes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// Whoever knows the tweaks can tell which ciphertext blocks were moved; whoever
// knows a sum of a tweak and a round key has the round key.
func TestStackHoldsNoTweakAfterACall(t *testing.T) {
	const unit, units = 512, 64
	r := rand.New(rand.NewPCG(1, 2))
	key, buf := dataunittest.Random(r, 64), dataunittest.Random(r, unit*units)
	twk, err := aes.NewCipher(key[32:])
	if err != nil {
		t.Fatal(err)
	}
	var secrets [][]byte
	for u := range uint64(units) {
		var n [blockLen]byte
		binary.LittleEndian.PutUint64(n[:], 1000+u)
		twk.Encrypt(n[:], n[:])
		lo, hi := binary.LittleEndian.Uint64(n[:]), binary.LittleEndian.Uint64(n[8:])
		for range unit / blockLen {
			t := binary.LittleEndian.AppendUint64(nil, lo)
			sum := binary.LittleEndian.AppendUint64(nil, lo^binary.LittleEndian.Uint64(key)) // the first round key
			secrets = append(secrets, t, sum)
			lo, hi = lo<<1^hi>>63*0x87, hi<<1|lo>>63
		}
	}
	each(t, func(t *testing.T, name string) {
		c := mustOpen(t, name, key, unit)
		for _, run := range []int{1, 9, units} {
			dataunittest.Forgets(t, func() { c.Encrypt(buf[:run*unit], buf[:run*unit], [2]uint64{1000}) }, secrets...)
			dataunittest.Forgets(t, func() { c.Decrypt(buf[:run*unit], buf[:run*unit], [2]uint64{1000}) }, secrets...)
		}
	})
}
