package history

import (
	"bytes"
	"fmt"
	"testing"
)

// runTwins runs the same steps on stacks that differ in engines, keyslots, reloads
// and levels, and compares what was read and what lies on the leaves.
func runTwins(t *testing.T, seed uint64, steps []Step, stats *Stats) *Failure {
	first := runOne(t, seed, steps, asItIs, stats)
	if f := first.failure(steps); f != nil {
		return f
	}
	for _, v := range []variant{noEngines, oneSlot, restless, taller} {
		other := runOne(t, seed, steps, v, stats)
		if f := other.failure(steps); f != nil {
			return f
		}
		if other.err = alike(first, other); other.err != nil {
			return other.failure(steps)
		}
	}
	return nil
}

// alike returns where twins differ, nil if they do not.
func alike(a, b *ran) error {
	for i := range max(len(a.results), len(b.results)) {
		if i >= len(a.results) || i >= len(b.results) {
			return fmt.Errorf("%d requests here, %d with %s", len(a.results), len(b.results), b.variant)
		}
		if a.results[i] != b.results[i] {
			return fmt.Errorf("%s; with %s: %s", a.results[i], b.variant, b.results[i])
		}
	}
	for i := range a.media {
		if !bytes.Equal(a.media[i], b.media[i]) {
			return fmt.Errorf("leaf %s differs from that with %s", a.leaves[i].name, b.variant)
		}
	}
	return nil
}
