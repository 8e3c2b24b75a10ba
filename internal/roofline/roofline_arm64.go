//go:build arm64 && !purego

package roofline

import "github.com/klauspost/cpuid/v2"

// roundsArmv8 runs 4×turns AES rounds with a round key of zero on each of the 12
// blocks of state. turns is at least 1.
//
//go:noescape
func roundsArmv8(state *byte, turns int)

func native() []Width {
	if !cpuid.CPU.Supports(cpuid.AESARM) {
		return nil
	}
	return []Width{{Bits: 128, asm: roundsArmv8}}
}
