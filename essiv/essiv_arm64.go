//go:build arm64 && !purego

package essiv

import (
	"github.com/klauspost/cpuid/v2"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

// The runtime cannot preempt assembly: these bound a call to some 50 µs on a core
// that does one AES round a cycle.
const (
	maxChain = 1024      // blocks of one data unit when encrypting
	maxBytes = 128 << 10 // when decrypting
	maxUnits = 64        // when decrypting: the stack holds a vector for each

	atOnce = 8 // data units that are encrypted side by side
)

func native() []dataunit.Impl[opener] {
	return []dataunit.Impl[opener]{
		{Name: "armv8", Supported: cpuid.CPU.Supports(cpuid.ASIMD, cpuid.AESARM), Open: newARMv8},
	}
}

// armv8 is one key.
type armv8 struct {
	mem      *secret.Buffer
	enc, dec *byte // round keys in order of use, in mem
	rounds   int
	numbers
	unit int
}

func newARMv8(key []byte, unit int) (engine, error) {
	n := aes.ScheduleSize(len(key))
	mem, err := secret.New(2 * n)
	if err != nil {
		return nil, err
	}
	enc, dec := mem.Bytes()[:n], mem.Bytes()[n:]
	aes.Expand(enc, key)
	aes.Invert(dec, enc)
	iv, err := newNumbers(key)
	if err != nil {
		mem.Wipe()
		return nil, err
	}
	return &armv8{mem, &enc[0], &dec[0], aes.Rounds(len(key)), iv, unit}, nil
}

func (a *armv8) wipe() {
	a.mem.Wipe()
	a.enc, a.dec = nil, nil
	a.numbers.wipe()
}

// Hot: no allocation.
func (a *armv8) crypt(dst, src []byte, units int, dun [2]uint64, step uint64, decrypt bool) {
	var room [maxUnits * blockLen]byte
	for units > 0 {
		var n int
		if decrypt {
			n = min(units, max(maxBytes/a.unit, 1), maxUnits)
			ivs := room[:n*blockLen]
			a.fill(ivs, dun, step, n)
			a.decrypt(dst, src, n, ivs)
		} else {
			n = min(units, atOnce)
			ivs := room[:atOnce*blockLen]
			a.fill(ivs, dun, step, n)
			a.encrypt(dst, src, n, ivs)
		}
		dst, src = dst[n*a.unit:], src[n*a.unit:]
		units, dun = units-n, dataunit.Add128(dun, n*int(step))
	}
	secret.Wipe(room[:])
}

func (a *armv8) encrypt(dst, src []byte, units int, ivs []byte) {
	blocks := a.unit / blockLen
	for at := 0; at < blocks; at += maxChain {
		n := min(maxChain, blocks-at)
		encryptARMv8(a.enc, a.rounds, &dst[at*blockLen], &src[at*blockLen], a.unit, n, units, &ivs[0])
	}
}

func (a *armv8) decrypt(dst, src []byte, units int, ivs []byte) {
	blocks := a.unit / blockLen
	// A data unit beyond maxBytes is alone, and in parts.
	for at := 0; at < blocks; at += maxBytes / blockLen {
		n := min(maxBytes/blockLen, blocks-at)
		decryptARMv8(a.dec, a.rounds, &dst[at*blockLen], &src[at*blockLen], n, units, &ivs[0])
	}
}
