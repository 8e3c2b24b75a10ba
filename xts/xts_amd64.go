//go:build amd64 && !purego

package xts

import (
	"math/bits"

	"github.com/klauspost/cpuid/v2"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

//go:generate sh -c "cd _asm && go run . -out ../xts_amd64.s -stubs ../stubs_amd64.go -pkg xts"

const (
	maxUnits = 64 // data units in a call of the assembly, whose stack holds a tweak for each

	// The runtime cannot preempt assembly: about 50 µs a call on a core that does
	// one AES round a cycle, unless one data unit is longer than this.
	maxBytes = 128 << 10

	scheduleSize = (aes.MaxRounds + 1) * blockLen
)

// width is one of three implementations: bits in a vector. Three types with a
// method each, or function values, would make the arguments of a call escape.
type width int

const (
	aesni   width = 128
	vaes256 width = 256
	vaes512 width = 512
)

// group is how many bytes are in flight, eight vectors. Data units must be a
// multiple of it.
func (w width) group() int { return int(w) }

func native() []dataunit.Impl[opener] {
	c := cpuid.CPU
	open := func(w width) opener {
		return opener{aesni.group(), func(key []byte, unit int) (engine, error) { return newAssembly(w, key, unit) }}
	}
	return []dataunit.Impl[opener]{
		{Name: "vaes512", Supported: c.Supports(cpuid.VAES, cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512DQ, cpuid.AVX512VBMI), Open: open(vaes512)},
		{Name: "vaes256", Supported: c.Supports(cpuid.AVX2, cpuid.VAES, cpuid.BMI2), Open: open(vaes256)},
		{Name: "aesni", Supported: c.Supports(cpuid.AVX, cpuid.AESNI), Open: open(aesni)},
	}
}

// assembly is one key under one of them.
type assembly struct {
	width
	mem           *secret.Buffer
	enc, dec, twk *byte // round keys in order of use, in mem
	rounds, unit  int
	batch         int // data units in a call
}

// newAssembly takes narrower vectors than w if a data unit is no whole groups of
// it: a CPU that has w has those too.
func newAssembly(w width, key []byte, unit int) (engine, error) {
	for unit%w.group() != 0 {
		w /= 2
	}
	mem, err := secret.New(3 * scheduleSize)
	if err != nil {
		return nil, err
	}
	half := len(key) / 2
	n := aes.ScheduleSize(half)
	enc, dec, twk := mem.Bytes()[:n], mem.Bytes()[scheduleSize:][:n], mem.Bytes()[2*scheduleSize:][:n]
	aes.Expand(enc, key[:half])
	aes.Expand(twk, key[half:])
	aes.Invert(dec, enc)
	return &assembly{
		w, mem, &enc[0], &dec[0], &twk[0], aes.Rounds(half), unit,
		max(min(maxUnits, maxBytes/unit), 1),
	}, nil
}

func (a *assembly) wipe() {
	a.mem.Wipe()
	a.enc, a.dec, a.twk = nil, nil, nil
}

// Hot: no allocation.
func (a *assembly) crypt(dst, src []byte, units int, lo, hi, step uint64, decrypt bool) {
	for ; units > a.batch; units -= a.batch {
		a.call(&dst[0], &src[0], a.batch, lo, hi, step, decrypt)
		dst, src = dst[a.batch*a.unit:], src[a.batch*a.unit:]
		var carry uint64
		lo, carry = bits.Add64(lo, uint64(a.batch)*step, 0)
		hi += carry
	}
	a.call(&dst[0], &src[0], units, lo, hi, step, decrypt)
}

func (a *assembly) call(dst, src *byte, units int, lo, hi, step uint64, decrypt bool) {
	switch {
	case a.width == vaes512 && decrypt:
		decryptVAES512(a.dec, a.twk, a.rounds, dst, src, a.unit, units, lo, hi, step)
	case a.width == vaes512:
		encryptVAES512(a.enc, a.twk, a.rounds, dst, src, a.unit, units, lo, hi, step)
	case a.width == vaes256 && decrypt:
		decryptVAES256(a.dec, a.twk, a.rounds, dst, src, a.unit, units, lo, hi, step)
	case a.width == vaes256:
		encryptVAES256(a.enc, a.twk, a.rounds, dst, src, a.unit, units, lo, hi, step)
	case decrypt:
		decryptAESNI(a.dec, a.twk, a.rounds, dst, src, a.unit, units, lo, hi, step)
	default:
		encryptAESNI(a.enc, a.twk, a.rounds, dst, src, a.unit, units, lo, hi, step)
	}
}
