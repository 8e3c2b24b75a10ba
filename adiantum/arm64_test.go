package adiantum

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// Any machine can check this.
func TestARM64AssemblyClearsRegistersBeforeReturning(t *testing.T) {
	dataunittest.ClearsNEON(t, "chacha_arm64.s", 2)
	dataunittest.ClearsNEON(t, "nh_arm64.s", 1)
}
