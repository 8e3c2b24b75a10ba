package cipher

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
)

// inPieces cuts a copy of b where it likes; joined is that copy.
func inPieces(r *rand.Rand, b []byte) (s block.Segments, joined []byte) {
	joined = bytes.Clone(b)
	var v [][]byte
	for at := 0; at < len(b); {
		n := 1 + r.IntN(1500)
		switch r.IntN(4) {
		case 0:
			n = 512 * (1 + r.IntN(5))
		case 1: // to the end of a data unit
			n = 512 - at%512
		}
		n = min(n, len(b)-at)
		v = append(v, joined[at:at+n])
		at += n
	}
	return block.Vec(v), joined
}

// blkcrypto.md invariants 2 and 3: every data unit has its own number, wherever the
// pieces of a request begin and end, and however the config counts.
func TestDataOfARequestMayLieInPieces(t *testing.T) {
	const unit, units = 1024, 13
	r := rand.New(rand.NewPCG(5, 8))
	for _, numbering := range []blkcrypto.Numbering{blkcrypto.ByUnit, blkcrypto.BySector} {
		for _, m := range supported() {
			c := blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: 8, Numbering: numbering}
			if m.IVSize() >= 16 {
				c.DUNBytes = 16
			}
			u, err := NewUnits(c, key(m))
			if err != nil {
				t.Fatal(err)
			}
			defer u.Wipe()
			plain := make([]byte, unit*units)
			for i := range plain {
				plain[i] = byte(r.Uint32())
			}
			for _, dun := range []blkcrypto.DUN{{}, {math.MaxUint32 - 5}, {math.MaxUint64 - 5, 3}} {
				if dun.Bytes() > c.DUNBytes {
					continue
				}
				want := make([]byte, len(plain))
				for k := range units {
					at := k * unit
					u.Encrypt(want[at:at+unit], plain[at:at+unit], c.DUN(dun, int64(at)))
				}
				for range 20 {
					src, from := inPieces(r, plain)
					dst, to := inPieces(r, make([]byte, len(plain)))
					if err := u.Crypt(true, dun, dst, src); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(to, want) || !bytes.Equal(from, plain) {
						t.Fatalf("%v: dun %x: wrong bytes, or a source that changed", c, dun)
					}
					if err := u.Crypt(false, dun, dst, dst); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(to, plain) {
						t.Fatalf("%v: dun %x: wrong bytes of a decryption in place", c, dun)
					}
					copy(to, want)
					if err := u.Crypt(false, dun, src, dst); err != nil || !bytes.Equal(from, plain) {
						t.Fatalf("%v: dun %x: wrong bytes of a decryption, error %v", c, dun, err)
					}
				}
				whole := make([]byte, len(plain))
				if err := u.Crypt(true, dun, block.Bytes(whole), block.Bytes(plain)); err != nil || !bytes.Equal(whole, want) {
					t.Fatalf("%v: dun %x: wrong bytes of one piece, error %v", c, dun, err)
				}
			}
		}
	}
}
