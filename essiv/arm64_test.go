package essiv

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// Any machine can check this.
func TestARM64AssemblyClearsRegistersBeforeReturning(t *testing.T) {
	dataunittest.ClearsNEON(t, "encrypt_arm64.s", 1)
	dataunittest.ClearsNEON(t, "decrypt_arm64.s", 1)
}
