//go:build amd64 && !purego

package aes

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

//go:generate sh -c "cd _asm && go run . -out ../aes_amd64.s -stubs ../stubs_amd64.go -pkg aes"

// hardware tells whether this CPU has the instructions behind expandKey,
// invertKey, encryptBlocks and decryptBlocks.
var hardware = cpuid.CPU.Supports(cpuid.AVX, cpuid.AESNI)

var vaes = cpuid.CPU.Supports(cpuid.AVX2, cpuid.VAES)

const vaesBlocks = 16 // a pass of the VAES functions, which take whole passes only

// encryptBlocks encrypts blocks blocks, at least one and at most maxBlocks, each
// on its own, under the schedule that expandKey made. dst and src are the same
// memory or disjoint.
func encryptBlocks(keys *byte, rounds int, dst, src *byte, blocks int) {
	if n := blocks &^ (vaesBlocks - 1); n > 0 && vaes {
		encryptBlocksVAES(keys, rounds, dst, src, n)
		if n == blocks {
			return
		}
		dst, src, blocks = after(dst, n), after(src, n), blocks-n
	}
	encryptBlocksAESNI(keys, rounds, dst, src, blocks)
}

// decryptBlocks is its inverse, under the schedule that invertKey made.
func decryptBlocks(keys *byte, rounds int, dst, src *byte, blocks int) {
	if n := blocks &^ (vaesBlocks - 1); n > 0 && vaes {
		decryptBlocksVAES(keys, rounds, dst, src, n)
		if n == blocks {
			return
		}
		dst, src, blocks = after(dst, n), after(src, n), blocks-n
	}
	decryptBlocksAESNI(keys, rounds, dst, src, blocks)
}

// after is p behind n blocks, more of which follow.
func after(p *byte, n int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(p), n*BlockSize)) }
