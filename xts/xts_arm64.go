//go:build arm64 && !purego

package xts

import (
	"github.com/klauspost/cpuid/v2"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

const (
	maxUnits = 64 // data units in a call of the assembly, whose stack holds a tweak for each

	// The runtime cannot preempt assembly: about 50 µs a call on a core that
	// does one AES round a cycle, unless one data unit is longer than this.
	maxBytes = 128 << 10

	scheduleSize = (aes.MaxRounds + 1) * blockLen
)

func native() []dataunit.Impl[opener] {
	return []dataunit.Impl[opener]{
		{Name: "armv8", Supported: cpuid.CPU.Supports(cpuid.ASIMD, cpuid.AESARM), Open: opener{128, newARMv8}},
	}
}

// armv8 is one key, its round keys in locked memory.
type armv8 struct {
	mem           *secret.Buffer
	enc, dec, twk *byte // round keys in order of use
	rounds, unit  int
	batch         int // data units in a call of the assembly
}

func newARMv8(key []byte, unit int) (engine, error) {
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
	return &armv8{
		mem: mem, enc: &enc[0], dec: &dec[0], twk: &twk[0],
		rounds: aes.Rounds(half), unit: unit,
		batch: max(min(maxUnits, maxBytes/unit), 1),
	}, nil
}

func (c *armv8) wipe() {
	c.mem.Wipe()
	c.enc, c.dec, c.twk = nil, nil, nil
}

// Hot: no allocation.
func (c *armv8) crypt(dst, src []byte, units int, lo, hi, step uint64, decrypt bool) {
	dun := [2]uint64{lo, hi}
	for at := 0; units > 0; {
		n := min(units, c.batch)
		if decrypt {
			decryptARMv8(c.dec, c.twk, c.rounds, &dst[at], &src[at], c.unit, n, dun[0], dun[1], step)
		} else {
			encryptARMv8(c.enc, c.twk, c.rounds, &dst[at], &src[at], c.unit, n, dun[0], dun[1], step)
		}
		units, at, dun = units-n, at+n*c.unit, dataunit.Add128(dun, n*int(step))
	}
}
