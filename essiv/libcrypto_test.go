package essiv

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"keyway/internal/dataunit/dataunittest"
	"keyway/test/libcrypto"
)

// OpenSSL's AES-CBC and AES-ECB are the foreign opinion on random runs: every key
// size, more and fewer units than lanes, numbers that carry.
func TestEqualsLibcrypto(t *testing.T) {
	o := libcrypto.Start(t)
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		key := dataunittest.Random(r, []int{16, 24, 32}[r.IntN(3)])
		unit := []int{16, 48, 512, 512, 512, 1024, 4096, 4096, 16 * (1 + r.IntN(300))}[r.IntN(9)]
		src := dataunittest.Random(r, unit*(1+r.IntN(max(1, min(70, (40<<10)/unit)))))
		dun := [2]uint64{r.Uint64(), r.Uint64()}
		if r.IntN(2) == 0 {
			dun = [2]uint64{math.MaxUint64 - r.Uint64N(40), math.MaxUint64 * r.Uint64N(2)}
		}
		encrypted, decrypted := o.ESSIV(key, src, unit, dun, false), o.ESSIV(key, src, unit, dun, true)
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

// BenchmarkAgainstLibcrypto tells how many times as fast as OpenSSL's AES-128-CBC
// each implementation is, rounds of both interleaved, medians compared. OpenSSL is
// given its initialisation vectors; ours are computed.
func BenchmarkAgainstLibcrypto(b *testing.B) {
	o := libcrypto.Start(b)
	key := dataunittest.Random(rand.New(rand.NewPCG(1, 2)), 16)
	for _, decrypt := range []bool{false, true} {
		for _, name := range Implementations() {
			for _, unit := range []int{512, 4096} {
				for _, units := range []int{1, 2, 8, 64} {
					verb := map[bool]string{false: "encrypt", true: "decrypt"}[decrypt]
					b.Run(fmt.Sprintf("%s/%s/%dx%d", verb, name, unit, units), func(b *testing.B) {
						against(b, o, name, key, unit, units, decrypt)
					})
				}
			}
		}
	}
}

func against(b *testing.B, o *libcrypto.Opinion, name string, key []byte, unit, units int, decrypt bool) {
	c, err := NewWith(name, key, unit)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Wipe()
	src, dst := make([]byte, unit*units), make([]byte, unit*units)
	call := libcrypto.Call{
		Op: libcrypto.AESCBC, Key: key, Unit: unit, IVs: libcrypto.Numbers([2]uint64{1}, units),
		Data: src, Decrypt: decrypt, Repeat: max(1, 1<<20/len(src)),
	}
	op := c.Encrypt
	if decrypt {
		op = c.Decrypt
	}
	var ours, theirs []time.Duration
	for b.Loop() {
		start := time.Now()
		for range call.Repeat {
			op(dst, src, [2]uint64{1})
		}
		ours = append(ours, time.Since(start)/time.Duration(call.Repeat))
		theirs = append(theirs, o.Time(call))
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2])
	}
	b.ReportMetric(median(theirs)/median(ours), "x-libcrypto")
	b.ReportMetric(float64(len(src))/median(ours), "GB/s")
	b.ReportMetric(0, "ns/op") // of both together: says nothing
}
