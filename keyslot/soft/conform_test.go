package soft_test

import (
	"testing"

	"keyway/internal/blocktest"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

func TestConforms(t *testing.T) {
	for _, slots := range []int{1, 2, 32} {
		blocktest.Engine(t, func(*testing.T) keyslot.Engine { return soft.New("soft", slots) })
	}
}
