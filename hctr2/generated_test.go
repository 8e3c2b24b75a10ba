package hctr2

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func TestGenerateChangesNothing(t *testing.T) {
	dataunittest.Generated(t, "hctr2", "hctr2_amd64.s", "stubs_amd64.go")
}

func TestAssemblyClearsVectorRegistersBeforeReturning(t *testing.T) {
	dataunittest.Clears(t, "hctr2_amd64.s", 5)
}
