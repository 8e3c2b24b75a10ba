//go:build arm64 && !purego

package aes

import "github.com/klauspost/cpuid/v2"

// hardware tells whether this CPU has the instructions behind the functions of
// this file.
var hardware = cpuid.CPU.Supports(cpuid.ASIMD, cpuid.AESARM)

// expandKey is Expand for a key of as many rounds: 10, 12 or 14.
//
//go:noescape
func expandKey(w, key *byte, rounds int)

// invertKey is Invert for a schedule of rounds+1 keys.
//
//go:noescape
func invertKey(dec, enc *byte, rounds int)

// encryptBlocks encrypts blocks blocks, at least one and at most maxBlocks, each
// on its own, under the schedule that expandKey made. dst and src are the same
// memory or disjoint.
//
//go:noescape
func encryptBlocks(keys *byte, rounds int, dst, src *byte, blocks int)

// decryptBlocks is its inverse, under the schedule that invertKey made.
//
//go:noescape
func decryptBlocks(keys *byte, rounds int, dst, src *byte, blocks int)
