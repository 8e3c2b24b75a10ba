package sm4xts

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// Whoever knows the tweaks can tell which ciphertext blocks were moved.
func TestStackHoldsNoTweakAfterACall(t *testing.T) {
	const unit, units = 512, 64
	r := rand.New(rand.NewPCG(1, 2))
	key, buf := dataunittest.Random(r, keyLen), dataunittest.Random(r, unit*units)
	tweak := newNaiveSM4(key[16:])
	var secrets [][]byte
	for u := range uint64(units) {
		var n [blockLen]byte
		binary.LittleEndian.PutUint64(n[:], 1000+u)
		tweak.Crypt(n[:], n[:], false)
		lo, hi := binary.LittleEndian.Uint64(n[:]), binary.LittleEndian.Uint64(n[8:])
		for range unit / blockLen {
			secrets = append(secrets, binary.LittleEndian.AppendUint64(nil, lo))
			lo, hi = lo<<1^hi>>63*0x87, hi<<1|lo>>63
		}
	}
	each(t, func(t *testing.T, name string) {
		c := mustOpen(t, name, key, unit)
		for _, run := range []int{1, 9, 17, units} {
			dataunittest.Forgets(t, func() { c.Encrypt(buf[:run*unit], buf[:run*unit], [2]uint64{1000}) }, secrets...)
			dataunittest.Forgets(t, func() { c.Decrypt(buf[:run*unit], buf[:run*unit], [2]uint64{1000}) }, secrets...)
		}
	})
}
