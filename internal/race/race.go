// Package race tells tests whether the race detector is there. It makes code that
// runs alone ten times slower and finds nothing in it, so tests of such code do less;
// the same tests run without it, in full.
package race

// Enabled is true under go test -race.
const Enabled = enabled

// Every is 1, and n under the race detector: the stride of a loop over many cases of
// which each runs alone.
func Every(n int) int {
	if Enabled {
		return n
	}
	return 1
}
