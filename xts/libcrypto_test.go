package xts

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/test/libcrypto"
)

// OpenSSL's AES-XTS is the foreign opinion on random runs: every key size, units
// that fit the widest assembly and units that do not, numbers that carry.
func TestEqualsLibcrypto(t *testing.T) {
	o := libcrypto.Start(t)
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		key := dataunittest.Random(r, []int{32, 48, 64}[r.IntN(3)])
		unit := []int{16, 48, 512, 512, 512, 1024, 4096, 4096, 16 * (1 + r.IntN(300))}[r.IntN(9)]
		src := dataunittest.Random(r, unit*(1+r.IntN(max(1, min(70, (40<<10)/unit)))))
		dun := [2]uint64{r.Uint64(), r.Uint64()}
		if r.IntN(2) == 0 {
			dun = [2]uint64{math.MaxUint64 - r.Uint64N(40), math.MaxUint64 * r.Uint64N(2)}
		}
		encrypted, decrypted := o.AESXTS(key, src, unit, dun, false), o.AESXTS(key, src, unit, dun, true)
		about := fmt.Sprintf("key of %d bytes, unit %d x %d, number %x", len(key), unit, len(src)/unit, dun)
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

// The same for single data units that steal ciphertext.
func TestStealingEqualsLibcrypto(t *testing.T) {
	o := libcrypto.Start(t)
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		key := dataunittest.Random(r, []int{32, 48, 64}[r.IntN(3)])
		src := dataunittest.Random(r, 16+r.IntN(1009))
		dun := [2]uint64{r.Uint64(), r.Uint64()}
		encrypted, decrypted := o.AESXTS(key, src, len(src), dun, false), o.AESXTS(key, src, len(src), dun, true)
		about := fmt.Sprintf("key of %d bytes, %d bytes, number %x", len(key), len(src), dun)
		each(t, func(t *testing.T, name string) {
			c := mustOpen(t, name, key, 1024)
			got := make([]byte, len(src))
			c.EncryptStealing(got, src, dun)
			dataunittest.Diff(t, about+": encrypted", got, encrypted)
			c.DecryptStealing(got, src, dun)
			dataunittest.Diff(t, about+": decrypted", got, decrypted)
		})
	}
}
