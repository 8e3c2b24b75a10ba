//go:build amd64 && !purego

package argon2

import "github.com/klauspost/cpuid/v2"

//go:generate sh -c "cd _asm && go run . -out ../argon2_amd64.s -stubs ../stubs_amd64.go -pkg argon2"

// avx2 tells whether this CPU has the instructions of the assembly; tests change it.
var avx2 = cpuid.CPU.Supports(cpuid.AVX2)

// mixFirst brings into work half of the mixing of prev and ref, and returns the
// first word of the result. old, whose words are added, may be nil.
//
// Not inlined, it is where the runtime preempts a segment.
//
//go:noinline
func mixFirst(work, prev, ref, old *block) uint64 {
	if avx2 {
		return mixFirstAVX2(work, prev, ref, old)
	}
	return mixFirstGeneric(work, prev, ref, old)
}

// mixLast does the rest, into dst, and fetches next into the cache meanwhile. old
// is dst or nil, and dst may be ref.
func mixLast(dst, work, prev, ref, old, next *block) {
	if avx2 {
		mixLastAVX2(dst, work, prev, ref, old, next)
		return
	}
	mixLastGeneric(dst, work, prev, ref, old)
}
