//go:build !purego

package essiv

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func TestGenerateChangesNothing(t *testing.T) {
	dataunittest.Generated(t, "essiv", "essiv_amd64.s", "stubs_amd64.go")
}

func TestAssemblyClearsVectorRegistersBeforeReturning(t *testing.T) {
	dataunittest.Clears(t, "essiv_amd64.s", 6)
}
