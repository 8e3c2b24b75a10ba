//go:build amd64 && !purego

package sm4xts

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"

	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

//go:generate sh -c "cd _asm && go run . -out ../sm4xts_amd64.s -stubs ../stubs_amd64.go -pkg sm4xts"

const (
	maxUnits = 64 // data units in a call of the assembly, whose stack holds a tweak for each

	// The runtime cannot preempt assembly: about 30 µs a call at most, unless one
	// data unit is longer than this.
	maxBytes = 32 << 10
)

// A machine is one implementation in assembly.
type machine int

const (
	gfni512 machine = iota
	gfni256
	vaes256
	aesni256
	aesni
)

func native() []dataunit.Impl[opener] {
	has := cpuid.CPU.Supports
	all := []dataunit.Impl[opener]{
		gfni512:  {Name: "gfni512", Supported: has(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512DQ, cpuid.GFNI, cpuid.VPCLMULQDQ)},
		gfni256:  {Name: "gfni256", Supported: has(cpuid.AVX2, cpuid.GFNI, cpuid.VPCLMULQDQ)},
		vaes256:  {Name: "vaes256", Supported: has(cpuid.AVX2, cpuid.VAES, cpuid.VPCLMULQDQ)},
		aesni256: {Name: "aesni256", Supported: has(cpuid.AVX2, cpuid.AESNI)},
		aesni:    {Name: "aesni", Supported: has(cpuid.AVX, cpuid.AESNI, cpuid.CLMUL)},
	}
	for m := range all {
		all[m].Open = opener{512, func(key []byte, unit int) (engine, error) { return newAssembly(machine(m), key, unit) }}
	}
	return all
}

// assembly is one key for one machine.
type assembly struct {
	mem           *secret.Buffer
	enc, dec, twk *byte // folded round keys in order of use, in mem
	machine       machine
	unit, batch   int // batch: data units in a call
}

func newAssembly(m machine, key []byte, unit int) (engine, error) {
	f := folding{m, m.stride()}
	const size = int(unsafe.Sizeof([2]schedule{}))
	mem, err := secret.New(3*f.size() + size)
	if err != nil {
		return nil, err
	}
	b := mem.Bytes()
	w := (*[2]schedule)(unsafe.Pointer(&b[3*f.size()]))
	expand(&w[0], &w[1], key)
	f.fold(b[:f.size()], &w[0], false)
	f.fold(b[f.size():][:f.size()], &w[0], true)
	f.fold(b[2*f.size():][:f.size()], &w[1], false)
	wipe(w)
	batch := max(min(maxUnits, maxBytes/unit), 1)
	return &assembly{mem, &b[0], &b[f.size()], &b[2*f.size()], m, unit, batch}, nil
}

func (a *assembly) wipe() {
	a.mem.Wipe()
	a.enc, a.dec, a.twk = nil, nil, nil
}

// Hot: no allocation.
func (a *assembly) crypt(dst, src []byte, units int, dun [2]uint64, step uint64, decrypt bool) {
	keys := a.enc
	if decrypt {
		keys = a.dec
	}
	for at := 0; units > 0; {
		n := min(units, a.batch)
		// Not by a function value: calls through one would make the arguments escape.
		switch a.machine {
		case gfni512:
			cryptGFNI512(keys, a.twk, &dst[at], &src[at], a.unit, n, dun[0], dun[1], step)
		case gfni256:
			cryptGFNI256(keys, a.twk, &dst[at], &src[at], a.unit, n, dun[0], dun[1], step)
		case vaes256:
			cryptVAES256(keys, a.twk, &dst[at], &src[at], a.unit, n, dun[0], dun[1], step)
		case aesni256:
			cryptAESNI256(keys, a.twk, &dst[at], &src[at], a.unit, n, dun[0], dun[1], step)
		case aesni:
			cryptAESNI(keys, a.twk, &dst[at], &src[at], a.unit, n, dun[0], dun[1], step)
		}
		units, at, dun = units-n, at+n*a.unit, dataunit.Add128(dun, n*int(step))
	}
}
