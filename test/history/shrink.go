package history

import (
	"slices"
	"testing"
	"time"
)

// Shrink leaves out steps of a history that failed, as long as it still fails and
// until no more can be spared, or the time is over. What it fails with may change
// on the way.
func Shrink(t *testing.T, f *Failure, limit time.Duration) *Failure {
	deadline := time.Now().Add(limit)
	for n := len(f.Steps) / 2; n > 0; n /= 2 {
		for at := 0; at < len(f.Steps); {
			if time.Now().After(deadline) {
				return f
			}
			fewer := slices.Delete(slices.Clone(f.Steps), at, min(at+n, len(f.Steps)))
			if g := Run(t, f.Seed, fewer, NewStats()); g != nil {
				f = g
				continue
			}
			at += n
		}
	}
	return f
}
