//go:build amd64 && !purego

package essiv

import (
	"github.com/klauspost/cpuid/v2"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

//go:generate sh -c "cd _asm && go run . -out ../essiv_amd64.s -stubs ../stubs_amd64.go -pkg essiv"

// The runtime cannot preempt assembly: these bound a call to some 40 µs at the
// worst, unless one data unit is longer.
const (
	maxChain = 1024      // blocks of one data unit when encrypting
	maxBytes = 128 << 10 // when decrypting
)

// width is one of three implementations: bits in a vector. Three types with a
// method each, or function values, would make the arguments of a call escape.
type width int

const (
	aesni   width = 128
	vaes256 width = 256
	vaes512 width = 512
)

// lanes is how many data units are encrypted at once: eight vectors.
func (w width) lanes() int { return 8 * int(w) / 128 }

func native() []dataunit.Impl[opener] {
	c := cpuid.CPU
	open := func(w width) opener {
		return func(key []byte, unit int) (engine, error) { return newAssembly(w, key, unit) }
	}
	return []dataunit.Impl[opener]{
		{Name: "vaes512", Supported: c.Supports(cpuid.VAES, cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512DQ), Open: open(vaes512)},
		{Name: "vaes256", Supported: c.Supports(cpuid.AVX2, cpuid.VAES), Open: open(vaes256)},
		{Name: "aesni", Supported: c.Supports(cpuid.AVX, cpuid.AESNI), Open: open(aesni)},
	}
}

// assembly is one key under one of them.
type assembly struct {
	width
	mem               *secret.Buffer
	enc, dec, numbers *byte // round keys in order of use, in mem
	rounds            int
	unit              int
}

const scheduleSize = (aes.MaxRounds + 1) * blockLen

func newAssembly(w width, key []byte, unit int) (engine, error) {
	mem, err := secret.New(3*scheduleSize + digestRoom)
	if err != nil {
		return nil, err
	}
	n := aes.ScheduleSize(len(key))
	enc, dec, numbers := mem.Bytes()[:n], mem.Bytes()[scheduleSize:][:n], mem.Bytes()[2*scheduleSize:][:scheduleSize]
	aes.Expand(enc, key)
	aes.Invert(dec, enc)
	room := mem.Bytes()[3*scheduleSize:]
	aes.Expand(numbers, digest(room, key))
	secret.Wipe(room)
	return &assembly{w, mem, &enc[0], &dec[0], &numbers[0], aes.Rounds(len(key)), unit}, nil
}

func (a *assembly) wipe() {
	a.mem.Wipe()
	a.enc, a.dec, a.numbers = nil, nil, nil
}

// Hot: no allocation.
func (a *assembly) crypt(dst, src []byte, units int, dun [2]uint64, step uint64, decrypt bool) {
	for units > 0 {
		// Encryption takes as many calls as needed, with as many units in each.
		calls := (units + a.lanes() - 1) / a.lanes()
		n := (units + calls - 1) / calls
		if decrypt {
			n = min(units, max(maxBytes/a.unit, 1))
		}
		switch d, s := dst[:n*a.unit], src[:n*a.unit]; {
		case decrypt && a.unit > maxBytes:
			a.decryptLong(d, s, dun)
		case decrypt:
			a.decrypt(&d[0], &s[0], a.unit/blockLen, n, dun, step, nil, 0)
		case a.unit > maxChain*blockLen:
			a.encryptLong(d, s, n, dun, step)
		default:
			a.encrypt(&d[0], &s[0], a.unit/blockLen, n, dun, step, nil, 0)
		}
		dst, src = dst[n*a.unit:], src[n*a.unit:]
		units, dun = units-n, dataunit.Add128(dun, n*int(step))
	}
}

// encryptLong encrypts data units in parts, decryptLong decrypts one.
func (a *assembly) encryptLong(dst, src []byte, units int, dun [2]uint64, step uint64) {
	var chain [8 * vaes512 / 8]byte
	blocks := a.unit / blockLen
	for at := 0; at < blocks; at += maxChain {
		a.encrypt(&dst[at*blockLen], &src[at*blockLen], min(maxChain, blocks-at), units, dun, step, &chain[0], at)
	}
	secret.Wipe(chain[:])
}

func (a *assembly) decryptLong(dst, src []byte, dun [2]uint64) {
	var chain [blockLen]byte
	for at := 0; at < a.unit; at += maxBytes {
		a.decrypt(&dst[at], &src[at], min(maxBytes, a.unit-at)/blockLen, 1, dun, 1, &chain[0], at)
	}
}

func (a *assembly) encrypt(dst, src *byte, blocks, units int, dun [2]uint64, step uint64, chain *byte, resume int) {
	switch a.width {
	case vaes512:
		encryptVAES512(a.enc, a.rounds, a.numbers, dst, src, a.unit, blocks, units, dun[0], dun[1], step, chain, resume)
	case vaes256:
		encryptVAES256(a.enc, a.rounds, a.numbers, dst, src, a.unit, blocks, units, dun[0], dun[1], step, chain, resume)
	default:
		encryptAESNI(a.enc, a.rounds, a.numbers, dst, src, a.unit, blocks, units, dun[0], dun[1], step, chain, resume)
	}
}

func (a *assembly) decrypt(dst, src *byte, blocks, units int, dun [2]uint64, step uint64, chain *byte, resume int) {
	switch a.width {
	case vaes512:
		decryptVAES512(a.dec, a.rounds, a.numbers, dst, src, blocks, units, dun[0], dun[1], step, chain, resume)
	case vaes256:
		decryptVAES256(a.dec, a.rounds, a.numbers, dst, src, blocks, units, dun[0], dun[1], step, chain, resume)
	default:
		decryptAESNI(a.dec, a.rounds, a.numbers, dst, src, blocks, units, dun[0], dun[1], step, chain, resume)
	}
}
