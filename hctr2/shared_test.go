package hctr2

import (
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// TestSharedMemory: others may see and change source and destination meanwhile.
func TestSharedMemory(t *testing.T) {
	dataunittest.Wide{
		Names: Implementations(), WorkSize: workSize, FirstMixes: true,
		Open: func(t testing.TB, name string, unit int) (dataunittest.Cipher, int) {
			c := mustOpen(t, name, dataunittest.Random(rand.New(rand.NewPCG(1, 2)), 32), unit)
			return c, c.batch
		},
	}.Run(t)
}
