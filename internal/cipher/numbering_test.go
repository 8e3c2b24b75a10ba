package cipher

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
)

// BenchmarkNumbering measures a request of 256 KiB in units of 4096 bytes, numbered
// by the sectors in them (dm-crypt, LUKS2) and one by one, in turns: the ratio is the
// median of the former's time over the latter's.
func BenchmarkNumbering(b *testing.B) {
	for _, m := range supported() {
		b.Run(fmt.Sprint(m), func(b *testing.B) {
			var by [2]*Units
			for i, n := range []blkcrypto.Numbering{blkcrypto.BySector, blkcrypto.ByUnit} {
				u, err := NewUnits(blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8, Numbering: n}, key(m))
				if err != nil {
					b.Fatal(err)
				}
				defer u.Wipe()
				by[i] = u
			}
			data := block.Bytes(make([]byte, 256<<10))
			var ratios []float64
			for b.Loop() {
				var took [2]time.Duration
				for i, u := range by {
					start := time.Now()
					if err := u.Crypt(true, blkcrypto.DUN64(8), data, data); err != nil {
						b.Fatal(err)
					}
					took[i] = time.Since(start)
				}
				ratios = append(ratios, float64(took[0])/float64(took[1]))
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "sector/unit")
			b.ReportMetric(0, "ns/op")
		})
	}
}
