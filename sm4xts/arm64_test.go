package sm4xts

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// Any machine can check this.
func TestARM64AssemblyClearsRegistersBeforeReturning(t *testing.T) {
	const lo, hi, fold = "R7", "R8", "R14"
	dataunittest.ClearsNEON(t, "sm4e_arm64.s", 1, lo, hi, fold)
	dataunittest.ClearsNEON(t, "armv8_arm64.s", 1, lo, hi, fold)
}
