//go:build (!amd64 && !arm64) || purego

package aes

// hardware tells whether this CPU has the instructions behind the functions of
// this file. One file for each architecture has them, in assembly; this one is
// for all others, where the portable twins do the work.
const hardware = false

// expandKey is Expand for a key of as many rounds.
func expandKey(w, key *byte, rounds int) { panic("aes: no instructions") }

// invertKey is Invert for a schedule of rounds+1 keys.
func invertKey(dec, enc *byte, rounds int) { panic("aes: no instructions") }

// encryptBlocks encrypts blocks blocks, at least one and at most maxBlocks, each
// on its own, under the schedule that expandKey made. dst and src are the same
// memory or disjoint.
func encryptBlocks(keys *byte, rounds int, dst, src *byte, blocks int) {
	panic("aes: no instructions")
}

// decryptBlocks is its inverse, under the schedule that invertKey made.
func decryptBlocks(keys *byte, rounds int, dst, src *byte, blocks int) {
	panic("aes: no instructions")
}
