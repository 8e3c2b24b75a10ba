package xts

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// Any machine can check this.
func TestARM64AssemblyClearsRegistersBeforeReturning(t *testing.T) {
	// A tweak, the first and the last round key, and their sums.
	dataunittest.ClearsNEON(t, "xts_arm64.s", 2,
		"R7", "R8", "R13", "R14", "R15", "R19", "R20", "R21", "R22", "R23", "R24")
}
