package adiantum

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"unsafe"

	"keyway/internal/dataunit/dataunittest"
)

// Set-up derives keys by a stream whose own key is derived too; none of them stays
// outside locked memory.
func TestStackHoldsNoKeyAfterSetUp(t *testing.T) {
	key := dataunittest.Random(rand.New(rand.NewPCG(1, 2)), KeySize)
	const derived = 17 * chachaBlock
	stream, words, sub := make([]byte, derived), new([8]uint32), new([8]uint32)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	hchacha(sub, words, &[16]byte{1}, 12)
	for i := 0; i < derived; i += chachaBlock {
		chachaXOR(stream[i:], stream[i:], sub, uint32(i/chachaBlock), 0, 12)
	}
	derivation := unsafe.Slice((*byte)(unsafe.Pointer(sub)), 32)
	secrets := [][]byte{key[:16], key[16:], derivation[:16], derivation[16:]}
	for i := 0; i < derived; i += blockLen {
		secrets = append(secrets, stream[i:][:blockLen])
	}
	for _, name := range Implementations() {
		t.Run(name, func(t *testing.T) {
			im, err := choice.Named(name)
			if err != nil {
				t.Fatal(err)
			}
			c := Cipher{im: im.Open, rounds: 12, unit: 4096, batch: 1}
			dataunittest.Forgets(t, func() { err = c.expand(key) }, secrets...)
			if err != nil {
				t.Fatal(err)
			}
			c.Wipe()
		})
	}
}
