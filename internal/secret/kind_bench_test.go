package secret

import (
	"fmt"
	"testing"
)

// What a mapping costs of each kind: a slab of the smallest and of the largest
// size, or a secret with pages of its own.
func BenchmarkMapping(b *testing.B) {
	defer SetPolicy(Best)
	for _, p := range []Policy{MlockOnly, Best} {
		for _, size := range []int{pageSize, maxSlab} {
			b.Run(fmt.Sprintf("%v/%d", p, size), func(b *testing.B) {
				SetPolicy(p)
				for b.Loop() {
					m, k, err := mapKeys(size)
					if err != nil {
						b.Fatal(err)
					}
					unmap(m, k)
				}
			})
		}
	}
}
