//go:build amd64 && !purego

package hctr2

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"

	"keyway/internal/dataunit"
)

//go:generate sh -c "cd _asm && go run . -out ../hctr2_amd64.s -stubs ../stubs_amd64.go -pkg hctr2"

func native() []dataunit.Impl[implementation] {
	return []dataunit.Impl[implementation]{
		{Name: "vaes256", Supported: cpuid.CPU.Supports(cpuid.AVX2, cpuid.VAES, cpuid.VPCLMULQDQ), Open: vaes256},
		{Name: "aesni", Supported: cpuid.CPU.Supports(cpuid.AVX, cpuid.AESNI, cpuid.CLMUL), Open: aesni},
	}
}

// powers is where the assembly finds those of the hash key.
func (c *Cipher) powers() *byte { return (*byte)(unsafe.Pointer(&c.keys.hash)) }

func bytesOf(e *element) *byte { return (*byte)(unsafe.Pointer(e)) }

// hash goes on with the hash sum over b, whole blocks.
func (c *Cipher) hash(sum *element, b []byte) {
	if c.im == generic {
		c.hashGeneric(sum, b)
		return
	}
	hashAVX(c.powers(), bytesOf(sum), &b[0], len(b)/blockLen)
}

// hashIn copies src, whole blocks, to text, and goes on with the hash sum over it.
func (c *Cipher) hashIn(sum *element, text, src []byte) {
	switch n := len(src) / blockLen; c.im {
	case vaes256:
		hashInVAES256(c.powers(), bytesOf(sum), &text[0], &src[0], n)
	case aesni:
		hashInAVX(c.powers(), bytesOf(sum), &text[0], &src[0], n)
	default:
		c.hashInGeneric(sum, text, src)
	}
}

// stream writes text, whole blocks, xor the stream from block count on to dst, and
// goes on with the hash sum over that.
func (c *Cipher) stream(w *work, sum *element, dst, text []byte, count uint64) {
	start, n := bytesOf(&w.start), len(text)/blockLen
	switch k := &c.keys.rounds[0]; c.im {
	case vaes256:
		streamVAES256(k, c.rounds, start, count, c.powers(), bytesOf(sum), &dst[0], &text[0], n)
	case aesni:
		streamAESNI(k, c.rounds, start, count, c.powers(), bytesOf(sum), &dst[0], &text[0], n)
	default:
		c.streamGeneric(w, sum, dst, text, count)
	}
}
