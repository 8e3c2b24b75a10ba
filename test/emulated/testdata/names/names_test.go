// Package names has subtests like those of the ciphers.
package names

import "testing"

func TestA(t *testing.T) {
	pass := func(t *testing.T) {}
	impls := func(t *testing.T) {
		for _, n := range []string{"wide", "aesni", "generic"} {
			t.Run(n, pass)
		}
	}
	impls(t)
	t.Run("generic things", pass)
	t.Run("Equals", func(t *testing.T) {
		impls(t)
		t.Run("deep", impls)
	})
}
