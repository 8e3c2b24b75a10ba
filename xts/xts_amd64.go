//go:build amd64 && !purego

package xts

import (
	"github.com/klauspost/cpuid/v2"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

//go:generate sh -c "cd _asm && go run . -out ../xts_amd64.s -stubs ../stubs_amd64.go -pkg xts"

const (
	maxUnits = 64 // data units in a call of the assembly, whose stack holds a tweak for each

	// The runtime cannot preempt assembly: about 30 µs a call at most, unless one
	// data unit is longer than this.
	maxBytes = 256 << 10

	scheduleSize = (aes.MaxRounds + 1) * blockLen
)

func native() []dataunit.Impl[opener] {
	return []dataunit.Impl[opener]{
		{Name: "vaes", Supported: cpuid.CPU.Supports(cpuid.AVX2, cpuid.VAES, cpuid.AESNI), Open: opener{256, newVAES}},
		{Name: "aesni", Supported: cpuid.CPU.Supports(cpuid.AVX, cpuid.AESNI), Open: opener{128, newAESNI}},
	}
}

// schedules of one key, in locked memory.
type schedules struct {
	mem           *secret.Buffer
	enc, dec, twk *byte // round keys in order of use
	rounds, unit  int
	batch         int // data units in a call of the assembly
}

func newSchedules(key []byte, unit int) (schedules, error) {
	mem, err := secret.New(3 * scheduleSize)
	if err != nil {
		return schedules{}, err
	}
	half := len(key) / 2
	n := aes.ScheduleSize(half)
	enc, dec, twk := mem.Bytes()[:n], mem.Bytes()[scheduleSize:][:n], mem.Bytes()[2*scheduleSize:][:n]
	aes.Expand(enc, key[:half])
	aes.Expand(twk, key[half:])
	aes.Invert(dec, enc)
	batch := max(min(maxUnits, maxBytes/unit), 1)
	return schedules{mem, &enc[0], &dec[0], &twk[0], aes.Rounds(half), unit, batch}, nil
}

func (s *schedules) wipe() {
	s.mem.Wipe()
	s.enc, s.dec, s.twk = nil, nil, nil
}

// Two types instead of function values: calls through those would make the
// arguments escape.
type (
	vaes  struct{ schedules }
	aesni struct{ schedules }
)

func newVAES(key []byte, unit int) (engine, error) {
	s, err := newSchedules(key, unit)
	return &vaes{s}, err
}

func newAESNI(key []byte, unit int) (engine, error) {
	s, err := newSchedules(key, unit)
	return &aesni{s}, err
}

// Hot: no allocation.
func (c *vaes) crypt(dst, src []byte, units int, dun [2]uint64, decrypt bool) {
	for at := 0; units > 0; {
		n := min(units, c.batch)
		if decrypt {
			decryptVAES(c.dec, c.twk, c.rounds, &dst[at], &src[at], c.unit, n, dun[0], dun[1])
		} else {
			encryptVAES(c.enc, c.twk, c.rounds, &dst[at], &src[at], c.unit, n, dun[0], dun[1])
		}
		units, at, dun = units-n, at+n*c.unit, dataunit.Add128(dun, n)
	}
}

// Hot: no allocation.
func (c *aesni) crypt(dst, src []byte, units int, dun [2]uint64, decrypt bool) {
	for at := 0; units > 0; {
		n := min(units, c.batch)
		if decrypt {
			decryptAESNI(c.dec, c.twk, c.rounds, &dst[at], &src[at], c.unit, n, dun[0], dun[1])
		} else {
			encryptAESNI(c.enc, c.twk, c.rounds, &dst[at], &src[at], c.unit, n, dun[0], dun[1])
		}
		units, at, dun = units-n, at+n*c.unit, dataunit.Add128(dun, n)
	}
}
