package sm4xts

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/test/libcrypto"
)

// OpenSSL's SM4, put together to XTS block by block, is the foreign opinion on
// random runs: units that fit the assembly and units that do not, numbers that
// carry.
func TestEqualsLibcrypto(t *testing.T) {
	o := libcrypto.Start(t)
	if !o.Has(libcrypto.SM4XTS, keyLen) {
		t.Skip("this libcrypto has no SM4")
	}
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		key := dataunittest.Random(r, keyLen)
		unit := []int{16, 48, 512, 512, 512, 1024, 4096, 4096, 16 * (1 + r.IntN(300))}[r.IntN(9)]
		src := dataunittest.Random(r, unit*(1+r.IntN(max(1, min(70, (40<<10)/unit)))))
		dun := [2]uint64{r.Uint64(), r.Uint64()}
		if r.IntN(2) == 0 {
			dun = [2]uint64{math.MaxUint64 - r.Uint64N(40), math.MaxUint64 * r.Uint64N(2)}
		}
		encrypted, decrypted := o.SM4XTS(key, src, unit, dun, false), o.SM4XTS(key, src, unit, dun, true)
		about := fmt.Sprintf("unit %d x %d, number %x", unit, len(src)/unit, dun)
		each(t, func(t *testing.T, name string) {
			c := mustOpen(t, name, key, unit)
			got := make([]byte, len(src))
			c.Encrypt(got, src, dun)
			dataunittest.Diff(t, about+": encrypted", got, encrypted)
			c.Decrypt(got, src, dun)
			dataunittest.Diff(t, about+": decrypted", got, decrypted)
		})
	}
}

// The block cipher alone, through the bitsliced code.
func TestBlocksEqualLibcrypto(t *testing.T) {
	o := libcrypto.Start(t)
	if !o.Has(libcrypto.SM4ECB, keyLen/2) {
		t.Skip("this libcrypto has no SM4")
	}
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 30 {
		key, src := dataunittest.Random(r, keyLen/2), dataunittest.Random(r, blockLen*(1+r.IntN(lanes)))
		for _, decrypt := range []bool{false, true} {
			want := o.Do(libcrypto.Call{Op: libcrypto.SM4ECB, Key: key, Unit: len(src), Data: src, Decrypt: decrypt})
			dataunittest.Diff(t, fmt.Sprintf("%d bytes, decrypt %v", len(src), decrypt), sliced(key, src, decrypt), want)
		}
	}
}
