package aes

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// Any machine can check this.
func TestARM64AssemblyClearsRegistersBeforeReturning(t *testing.T) {
	// Words of an expanded key.
	dataunittest.ClearsNEON(t, "aes_arm64.s", 4, "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R11", "R12")
}
