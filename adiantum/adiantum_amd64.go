//go:build amd64 && !purego

package adiantum

import (
	"github.com/klauspost/cpuid/v2"

	"keyway/internal/dataunit"
)

//go:generate sh -c "cd _asm && go run . -out ../adiantum_amd64.s -stubs ../stubs_amd64.go -pkg adiantum"

func native() []dataunit.Impl[implementation] {
	return []dataunit.Impl[implementation]{
		{Name: "avx512", Supported: cpuid.CPU.Supports(cpuid.AVX2, cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512DQ), Open: avx512},
		{Name: "avx2", Supported: cpuid.CPU.Supports(cpuid.AVX2), Open: avx2},
	}
}

// lanes is how many data units im takes at once.
func lanes(im implementation) int {
	switch im {
	case avx512:
		return 16
	case avx2:
		return 8
	}
	return 1
}

// distance is that of the units of NH that im wants in one register, 0 if it does
// not.
func distance(im implementation) int {
	switch im {
	case avx512:
		return 4
	case avx2:
		return 2
	}
	return 0
}

// hashIn copies n data units from src to text, reading each byte once, and sets the
// sums to the hashes of their left parts.
func (c *Cipher) hashIn(w *work, text, src []byte, n int) {
	switch k := c.keys; c.im {
	case avx512:
		hashInAVX512(&k.m[0], &k.pairs[0][0][0], &w.sums[0][0], &text[0], &src[0], c.unit, n)
	case avx2:
		hashInAVX2(&k.m[0], &k.pairs[0][0][0], &w.sums[0][0], &text[0], &src[0], c.unit, n)
	default:
		c.hashInGeneric(w, text, src, n)
	}
}

// hashOut sets the sums to the hashes of the left parts of text and erases text.
func (c *Cipher) hashOut(w *work, text []byte, n int) {
	switch k := c.keys; c.im {
	case avx512:
		hashOutAVX512(&k.m[0], &k.pairs[0][0][0], &w.sums[0][0], &text[0], c.unit, n)
	case avx2:
		hashOutAVX2(&k.m[0], &k.pairs[0][0][0], &w.sums[0][0], &text[0], c.unit, n)
	default:
		c.hashOutGeneric(w, text, n)
	}
}

// subkeys makes the keys of the streams of n data units, and with vectors those of
// all lanes.
func (c *Cipher) subkeys(w *work, n int) {
	key, sub, nonces := &c.keys.stream[0], &w.sub[0][0], &w.middle[0][0]
	switch {
	case c.im == avx512 && n <= 2:
		subkeyPairAVX512(key, sub, nonces, c.rounds)
	case c.im == avx512:
		subkeysAVX512(key, sub, nonces, c.rounds)
	case c.im == avx2 && n <= 2:
		subkeyPairAVX2(key, sub, nonces, c.rounds)
	case c.im == avx2:
		subkeysAVX2(key, sub, nonces, c.rounds)
	default:
		c.subkeysGeneric(w, n)
	}
}

// stream writes the left parts of text, xor their streams, to text and to dst.
func (c *Cipher) stream(w *work, dst, text []byte, n int) {
	switch c.im {
	case avx512:
		streamAVX512(&w.sub[0][0], &dst[0], &text[0], c.rounds, c.unit, n)
	case avx2:
		streamAVX2(&w.sub[0][0], &dst[0], &text[0], c.rounds, c.unit, n)
	default:
		c.streamGeneric(w, dst, text, n)
	}
}
