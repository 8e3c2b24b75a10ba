package adiantum

import (
	"encoding/binary"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// with is the contract for one number of rounds.
func with(rounds int, units ...int) dataunittest.Subject {
	return dataunittest.Subject{
		Package: "adiantum",
		Names:   Implementations(),
		New: func(name string, key []byte, unit int) (dataunittest.Cipher, error) {
			im, err := choice.Named(name)
			if err != nil {
				return nil, err
			}
			c, err := open(im.Open, key, unit, rounds)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		Keys:  []int{KeySize},
		Units: append([]int{512, 4096, 16}, units...),
		Limbs: 4,
		Reference: func(dst, src, key []byte, unit int, dun [4]uint64, decrypt bool) {
			c := newNaive(key, rounds)
			for i := 0; i < len(src); i += unit {
				c.Crypt(dst[i:i+unit], src[i:i+unit], tweak(dun), decrypt)
				dun = dataunittest.Add(dun, 1, 4)
			}
		},
		Slow: []string{"generic"},
	}
}

// tweak is the number of a data unit as the paper has it.
func tweak(dun [4]uint64) []byte {
	var b []byte
	for _, limb := range dun {
		b = binary.LittleEndian.AppendUint64(b, limb)
	}
	return b
}

// odd are sizes that end at other places of the vectors and of NH's kilobytes.
var odd = []int{32, 48, 64, 80, 128, 240, 496, 528, 544, 560, 1024, 1040, 1088, 1536, 2048, 5008, 65536}

func TestContract(t *testing.T)             { dataunittest.Contract(t, with(12, odd...)) }
func TestContractOfXChaCha20(t *testing.T)  { dataunittest.Contract(t, with(20, 2064)) }
func FuzzEqualsNaiveReference(f *testing.F) { dataunittest.Fuzz(f, with(12, odd...)) }
func FuzzXChaCha20(f *testing.F)            { dataunittest.Fuzz(f, with(20, odd...)) }
func BenchmarkNewWipe(b *testing.B)         { dataunittest.BenchmarkNewWipe(b, with(12)) }
func BenchmarkCipher(b *testing.B)          { dataunittest.Benchmark(b, with(12)) }

func TestGenerateChangesNothing(t *testing.T) {
	dataunittest.Generated(t, "adiantum", "adiantum_amd64.s", "stubs_amd64.go")
}

func TestAssemblyClearsVectorRegistersBeforeReturning(t *testing.T) {
	dataunittest.Clears(t, "adiantum_amd64.s", 10)
}
