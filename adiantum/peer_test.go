package adiantum

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	peer "lukechampine.com/adiantum"
	"lukechampine.com/adiantum/hbsh"

	"keyway/internal/dataunit/dataunittest"
)

// peerRun does with the peer what a Cipher does with a run, in place.
func peerRun(op func(block, tweak []byte) []byte, b []byte, unit int, dun [4]uint64) {
	var t [32]byte
	for i := 0; i < len(b); i += unit {
		for j, limb := range dun {
			binary.LittleEndian.PutUint64(t[8*j:], limb)
		}
		op(b[i:i+unit], t[:])
		dun = dataunittest.Add(dun, 1, 4)
	}
}

// lukechampine.com/adiantum is the second opinion on what the vectors leave out:
// runs of data units of many sizes.
func TestEqualsAnotherImplementation(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, rounds := range []int{12, 20} {
		for _, name := range Implementations() {
			im, err := choice.Named(name)
			if err != nil {
				t.Fatal(err)
			}
			for range 60 {
				unit := 16 * (1 + r.IntN(1<<r.IntN(9)))
				dun := [4]uint64{-uint64(r.IntN(20)), -uint64(r.IntN(2)), r.Uint64(), r.Uint64()}
				key, plain := dataunittest.Random(r, KeySize), dataunittest.Random(r, unit*(1+r.IntN(20)))
				var p *hbsh.HBSH
				if p = peer.New(key); rounds == 20 {
					p = peer.New20(key)
				}
				want := slices.Clone(plain)
				peerRun(p.Encrypt, want, unit, dun)

				c, err := open(im.Open, key, unit, rounds)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(plain))
				c.Encrypt(got, plain, dun)
				dataunittest.Diff(t, fmt.Sprintf("%s, %d rounds, units of %d", name, rounds, unit), got, want)
				c.Wipe()
			}
		}
	}
}

// BenchmarkAgainstPeer measures both in turns, so that a noisy machine disturbs
// both: the metrics are medians, the ratio is the peer's time over ours.
func BenchmarkAgainstPeer(b *testing.B) {
	key := make([]byte, KeySize)
	theirs := peer.New(key)
	for _, name := range Implementations() {
		for _, unit := range []int{512, 4096} {
			for _, units := range []int{1, 8, 64} {
				for _, verb := range []string{"encrypt", "decrypt"} {
					b.Run(fmt.Sprintf("%s/%s/%dx%d", name, verb, unit, units), func(b *testing.B) {
						ours, err := NewWith(name, key, unit)
						if err != nil {
							b.Fatal(err)
						}
						defer ours.Wipe()
						op, peerOp := ours.Encrypt, theirs.Encrypt
						if verb == "decrypt" {
							op, peerOp = ours.Decrypt, theirs.Decrypt
						}
						buf := make([]byte, unit*units)
						again := 1 + (64<<10)/len(buf)
						var fast, slow, ratio []float64
						for b.Loop() {
							start := time.Now()
							for range again {
								op(buf, buf, [4]uint64{1})
							}
							middle := time.Now()
							for range again {
								peerRun(peerOp, buf, unit, [4]uint64{1})
							}
							end := time.Now()
							fast = append(fast, float64(middle.Sub(start)))
							slow = append(slow, float64(end.Sub(middle)))
							ratio = append(ratio, float64(end.Sub(middle))/float64(middle.Sub(start)))
						}
						median := func(x []float64) float64 { slices.Sort(x); return x[len(x)/2] }
						bytes := float64(again * len(buf))
						b.ReportMetric(median(ratio), "times-the-peer")
						b.ReportMetric(bytes/median(fast), "GB/s")
						b.ReportMetric(bytes/median(slow), "peer-GB/s")
						b.ReportMetric(0, "ns/op")
					})
				}
			}
		}
	}
}
