//go:build amd64 && !purego

package digest

import (
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func TestGenerateChangesNothing(t *testing.T) {
	dataunittest.Generated(t, "digest", "digest_amd64.s", "stubs_amd64.go")
}
