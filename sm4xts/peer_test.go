package sm4xts_test // package measure imports sm4xts

import (
	"context"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	gmcipher "github.com/emmansun/gmsm/cipher"
	"github.com/emmansun/gmsm/sm4"

	"keyway/internal/dataunit"
	"keyway/internal/dataunit/dataunittest"
	"keyway/internal/measure"
	"keyway/sm4xts"
)

// gmsm is the XTS of github.com/emmansun/gmsm, a second opinion and a peer. Its
// interface takes the keys anew for each data unit; here they are expanded once.
type gmsm struct {
	data, tweak cipher.Block
	unit        int
}

func newGmsm(t testing.TB, key []byte, unit int) *gmsm {
	t.Helper()
	data, err1 := sm4.NewCipher(key[:16])
	tweak, err2 := sm4.NewCipher(key[16:])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return &gmsm{data, tweak, unit}
}

var gmsmData, gmsmTweak = []byte{0}, []byte{1}

func (g *gmsm) expanded(key []byte) (cipher.Block, error) {
	if key[0] == gmsmData[0] {
		return g.data, nil
	}
	return g.tweak, nil
}

func (g *gmsm) crypt(dst, src []byte, dun [2]uint64, decrypt bool) {
	for ; len(src) > 0; dst, src = dst[g.unit:], src[g.unit:] {
		var number [16]byte
		binary.LittleEndian.PutUint64(number[:], dun[0])
		binary.LittleEndian.PutUint64(number[8:], dun[1])
		make := gmcipher.NewXTSEncrypter
		if decrypt {
			make = gmcipher.NewXTSDecrypter
		}
		m, err := make(g.expanded, gmsmData, gmsmTweak, number[:])
		if err != nil {
			panic(err)
		}
		m.CryptBlocks(dst[:g.unit], src[:g.unit])
		dun = dataunit.Add128(dun, 1)
	}
}

func open(t testing.TB, name string, key []byte, unit int) *sm4xts.Cipher {
	t.Helper()
	c, err := sm4xts.NewWith(name, key, unit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c
}

func TestEqualsGmsm(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		key := dataunittest.Random(r, 32)
		unit := []int{16, 512, 512, 1024, 4096, 16 * (1 + r.IntN(300))}[r.IntN(6)]
		src := dataunittest.Random(r, unit*(1+r.IntN(max(1, min(70, (20<<10)/unit)))))
		dun := [2]uint64{math.MaxUint64 - r.Uint64N(40), r.Uint64()}
		encrypted, decrypted := make([]byte, len(src)), make([]byte, len(src))
		peer := newGmsm(t, key, unit)
		peer.crypt(encrypted, src, dun, false)
		peer.crypt(decrypted, src, dun, true)
		about := fmt.Sprintf("unit %d x %d, number %x", unit, len(src)/unit, dun)
		for _, name := range sm4xts.Implementations() {
			c := open(t, name, key, unit)
			got := make([]byte, len(src))
			c.Encrypt(got, src, dun)
			dataunittest.Diff(t, name+", "+about+": encrypted", got, encrypted)
			c.Decrypt(got, src, dun)
			dataunittest.Diff(t, name+", "+about+": decrypted", got, decrypted)
		}
	}
}

// BenchmarkRatioToGmsm reports how many times as fast as gmsm each implementation
// is: the median of 15 pairs of runs next to each other, in processor time.
func BenchmarkRatioToGmsm(b *testing.B) {
	const bytes = 64 << 10
	src, dst := make([]byte, bytes), make([]byte, bytes)
	for _, decrypt := range []bool{false, true} {
		for _, unit := range []int{512, 4096} {
			for _, units := range []int{1, 8, bytes / unit} {
				for _, name := range sm4xts.Implementations() {
					b.Run(fmt.Sprintf("%s/%dx%d/decrypt=%v", name, unit, units, decrypt), func(b *testing.B) {
						key := dataunittest.Random(rand.New(rand.NewPCG(1, 2)), 32)
						c, peer := open(b, name, key, unit), newGmsm(b, key, unit)
						op := c.Encrypt
						if decrypt {
							op = c.Decrypt
						}
						n := unit * units
						rate := func(f func()) float64 {
							return float64(n) * measure.Rate(context.Background(), 1, 4*time.Millisecond, func(int) func() { return f })
						}
						var ours, theirs, ratios []float64
						for range 15 {
							ours = append(ours, rate(func() { op(dst[:n], src[:n], [2]uint64{9}) }))
							theirs = append(theirs, rate(func() { peer.crypt(dst[:n], src[:n], [2]uint64{9}, decrypt) }))
							ratios = append(ratios, ours[len(ours)-1]/theirs[len(theirs)-1])
						}
						b.ReportMetric(0, "ns/op")
						b.ReportMetric(measure.Median(ratios), "x-gmsm")
						b.ReportMetric(measure.Median(ours)/1e6, "MB/s")
						b.ReportMetric(measure.Median(theirs)/1e6, "gmsm-MB/s")
					})
				}
			}
		}
	}
}
