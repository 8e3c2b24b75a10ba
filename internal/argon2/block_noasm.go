//go:build !amd64 || purego

package argon2

const avx2 = false

// Not inlined, it is where the runtime preempts a segment.
//
//go:noinline
func mixFirst(work, prev, ref, old *block) uint64 { return mixFirstGeneric(work, prev, ref, old) }

func mixLast(dst, work, prev, ref, old, _ *block) { mixLastGeneric(dst, work, prev, ref, old) }
