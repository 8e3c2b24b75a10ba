package main

import (
	"errors"
	"fmt"

	"github.com/klauspost/cpuid/v2"
)

//go:noescape
func affine512(dst, src *[64]byte)

//go:noescape
func affine256(dst, src *[64]byte)

// checkMachine makes sure that this is the machine which the runner built for.
func checkMachine() error {
	for _, f := range []cpuid.FeatureID{
		cpuid.AVX2, cpuid.VAES, cpuid.VPCLMULQDQ, cpuid.GFNI,
		cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL,
	} {
		if !cpuid.CPU.Supports(f) {
			return fmt.Errorf("the machine (%s) has no %v", cpuid.CPU.BrandName, f)
		}
	}
	// See overlay.go: a Bochs that is right would make the rewritten code wrong.
	for i, f := range []func(dst, src *[64]byte){affine512, affine256} {
		for n := range 4 {
			var src, got [64]byte
			for j := range src {
				src[j] = byte(64*n + j)
			}
			f(&got, &src)
			for j := range got {
				if got[j] != ^src[j] {
					return fmt.Errorf("identity %d of GF2P8AFFINEQB on %#02x gives %#02x: not the known fault of Bochs 2.7: %w",
						i, src[j], got[j], errors.ErrUnsupported)
				}
			}
		}
	}
	return nil
}
