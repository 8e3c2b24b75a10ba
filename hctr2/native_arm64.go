//go:build arm64 && !purego

package hctr2

import (
	"github.com/klauspost/cpuid/v2"

	"keyway/internal/dataunit"
)

func native() []dataunit.Impl[implementation] {
	return []dataunit.Impl[implementation]{
		{Name: "armv8", Supported: cpuid.CPU.Supports(cpuid.ASIMD, cpuid.AESARM), Open: armv8},
	}
}
