//go:build arm64 && !purego

package adiantum

import (
	"github.com/klauspost/cpuid/v2"

	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

func native() []dataunit.Impl[implementation] {
	return []dataunit.Impl[implementation]{
		{Name: "neon", Supported: cpuid.CPU.Supports(cpuid.ASIMD), Open: neon},
	}
}

// maxStream is the number of bytes in a call of the assembly, which the runtime
// cannot preempt: some 30 µs. It is a whole number of blocks.
const maxStream = 32 << 10

// streams is how many keys of streams are made side by side.
const streams = 4

// lanes is how many data units im takes at once.
func lanes(im implementation) int {
	if im == neon {
		return 2 * streams
	}
	return 1
}

// distance is that of the units of NH that im wants in one register, 0 if it does
// not.
func distance(im implementation) int {
	if im == neon {
		return 1
	}
	return 0
}

// hashIn copies n data units from src to text, reading each byte once, and sets the
// sums to the hashes of their left parts.
func (c *Cipher) hashIn(w *work, text, src []byte, n int) {
	if c.im == neon {
		copy(text, src)
		c.sumNEON(w, text, n)
		return
	}
	c.hashInGeneric(w, text, src, n)
}

// hashOut sets the sums to the hashes of the left parts of text and erases text.
func (c *Cipher) hashOut(w *work, text []byte, n int) {
	if c.im == neon {
		c.sumNEON(w, text, n)
		secret.Wipe(text)
		return
	}
	c.hashOutGeneric(w, text, n)
}

// sumNEON is sumGeneric with NH by NEON. The polynomial is a multiplication for
// each 512 bytes: general registers do that well.
func (c *Cipher) sumNEON(w *work, text []byte, n int) {
	k := c.keys
	var s [nhPasses]uint64
	for u := range n {
		var h element
		for m := text[u*c.unit:][:c.unit-blockLen]; len(m) > 0; {
			part := min(len(m), nhChunk)
			nhNEON(&k.pairs[0][0][0], &k.pairs[1][0][0], &s[0], &m[0], part)
			h = h.plus(element{s[0], s[1], 1}).times(k.m[0], k.m[1])
			h = h.plus(element{s[2], s[3], 1}).times(k.m[0], k.m[1])
			m = m[part:]
		}
		w.sums[u][0], w.sums[u][1] = h.low()
	}
	forgetSums(&s)
}

// forgetSums erases what NH made; the compiler neither inlines nor removes it.
//
//go:noinline
func forgetSums(s *[nhPasses]uint64) { *s = [nhPasses]uint64{} }

// subkeys makes the keys of the streams of n data units.
func (c *Cipher) subkeys(w *work, n int) {
	if c.im == neon {
		for u := 0; u < n; u += streams {
			subkeysNEON(&c.keys.stream[0], &w.sub[u][0], &w.middle[u][0], c.rounds)
		}
		return
	}
	c.subkeysGeneric(w, n)
}

// stream writes the left parts of text, xor their streams, to text and to dst.
func (c *Cipher) stream(w *work, dst, text []byte, n int) {
	if c.im != neon {
		c.streamGeneric(w, dst, text, n)
		return
	}
	for u := range n {
		left := c.unit - blockLen
		for at := 0; at < left; at += maxStream {
			i := u*c.unit + at
			streamNEON(&w.sub[u][0], &dst[i], &text[i], min(maxStream, left-at), uint32(at/chachaBlock), c.rounds)
		}
	}
}
