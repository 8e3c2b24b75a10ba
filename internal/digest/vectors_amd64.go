//go:build amd64 && !purego

package digest

import "github.com/klauspost/cpuid/v2"

//go:generate sh -c "cd _asm && go run . -out ../digest_amd64.s -stubs ../stubs_amd64.go -pkg digest"

var avx = cpuid.CPU.Supports(cpuid.AVX)

// clearVectors clears the vector registers that the hash functions use: of AVX-512's
// none of them touches those beyond sixteen.
func clearVectors() {
	if avx {
		clearAVX()
	} else {
		clearSSE()
	}
}
