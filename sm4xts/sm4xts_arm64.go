//go:build arm64 && !purego

package sm4xts

import (
	"math/bits"
	"unsafe"

	"github.com/klauspost/cpuid/v2"

	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

const maxUnits = 64 // data units in a call of the assembly, whose stack holds a tweak for each

// A machine is one implementation in assembly.
type machine int

const (
	sm4e machine = iota
	armv8
)

// maxBytes bounds a call of the assembly, which the runtime cannot preempt, to some
// 50 µs, unless one data unit is longer than this.
func (m machine) maxBytes() int {
	if m == sm4e {
		return 64 << 10
	}
	return 16 << 10
}

func native() []dataunit.Impl[opener] {
	has := cpuid.CPU.Supports
	return []dataunit.Impl[opener]{
		{Name: "sm4e", Supported: has(cpuid.ASIMD, cpuid.SM4), Open: opener{128, newSM4E}},
		{Name: "armv8", Supported: has(cpuid.ASIMD, cpuid.AESARM), Open: opener{256, newARMv8}},
	}
}

// assembly is one key for one machine.
type assembly struct {
	mem         *secret.Buffer
	keys        *assemblyKeys // in mem
	machine     machine
	unit, batch int // batch: data units in a call
}

// assemblyKeys are round keys in order of use, as words.
type assemblyKeys struct {
	enc, dec, tweak schedule
}

func newSM4E(key []byte, unit int) (engine, error)  { return newAssembly(sm4e, key, unit) }
func newARMv8(key []byte, unit int) (engine, error) { return newAssembly(armv8, key, unit) }

func newAssembly(m machine, key []byte, unit int) (engine, error) {
	mem, err := secret.New(int(unsafe.Sizeof(assemblyKeys{})))
	if err != nil {
		return nil, err
	}
	k := (*assemblyKeys)(unsafe.Pointer(&mem.Bytes()[0]))
	expand(&k.enc, &k.tweak, key)
	for i := range k.enc {
		k.dec[i] = k.enc[rounds-1-i]
	}
	for _, w := range []*schedule{&k.enc, &k.dec, &k.tweak} {
		for i := range w {
			w[i] = bits.ReverseBytes32(w[i]) // the assembly has the bytes of a word reversed
			if m == armv8 {
				w[i] ^= fold(i) * 0x01010101
			}
		}
	}
	return &assembly{mem, k, m, unit, max(min(maxUnits, m.maxBytes()/unit), 1)}, nil
}

// sboxOutAES is what the S-box of armv8_arm64.s lacks in each byte of its output.
const sboxOutAES = 0xf5

// fold returns what round key i takes on, in each byte, for the constants of the
// S-box: sboxIn, and c, the constant that its output and the linear transformation
// leave in a new word. As in slicedKeys.slice, word i is kept with floor(i/4) times c
// added to it.
func fold(i int) uint32 {
	const c = sboxOutAES<<2&0xff | sboxOutAES>>6
	x := uint32(sboxIn)
	for j := i + 1; j <= i+3; j++ {
		if j/4%2 == 1 {
			x ^= c
		}
	}
	return x
}

func (a *assembly) wipe() {
	a.mem.Wipe()
	a.keys = nil
}

// Hot: no allocation.
func (a *assembly) crypt(dst, src []byte, units int, dun [2]uint64, step uint64, decrypt bool) {
	keys, tweak := &a.keys.enc[0], &a.keys.tweak[0]
	if decrypt {
		keys = &a.keys.dec[0]
	}
	for at := 0; units > 0; {
		n := min(units, a.batch)
		// Not by a function value: calls through one would make the arguments escape.
		if a.machine == sm4e {
			cryptSM4E(keys, tweak, &dst[at], &src[at], a.unit, n, dun[0], dun[1], step)
		} else {
			cryptARMv8(keys, tweak, &dst[at], &src[at], a.unit, n, dun[0], dun[1], step)
		}
		units, at, dun = units-n, at+n*a.unit, dataunit.Add128(dun, n*int(step))
	}
}
