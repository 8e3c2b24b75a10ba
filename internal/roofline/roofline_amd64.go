//go:build amd64 && !purego

package roofline

import "github.com/klauspost/cpuid/v2"

//go:generate sh -c "cd _asm && go run . -out ../roofline_amd64.s -stubs ../stubs_amd64.go -pkg roofline"

func native() (all []Width) {
	for _, w := range []struct {
		bits      int
		supported bool
		asm       func(state *byte, turns int)
	}{
		{128, cpuid.CPU.Supports(cpuid.AVX, cpuid.AESNI), rounds128},
		{256, cpuid.CPU.Supports(cpuid.AVX2, cpuid.AESNI, cpuid.VAES), rounds256},
		{512, cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AESNI, cpuid.VAES), rounds512},
	} {
		if w.supported {
			all = append(all, Width{Bits: w.bits, asm: w.asm})
		}
	}
	return all
}
