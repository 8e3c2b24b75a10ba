//go:build amd64 && !purego

package argon2

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func setAVX2(on bool) { avx2 = on }

func TestGenerateChangesNothing(t *testing.T) {
	dataunittest.Generated(t, "argon2", "argon2_amd64.s", "stubs_amd64.go")
}

func TestAssemblyClearsVectorRegistersBeforeReturning(t *testing.T) {
	dataunittest.Clears(t, "argon2_amd64.s", 3)
}
