// Package invariant turns on checks that are too dear for production: under the
// build tag "invariants" and under the race detector.
//
//	if invariant.Enabled {
//		invariant.Check(m.sane(), "keyslot: LRU list and slot table disagree")
//	}
//
// With Enabled false the compiler drops the block and what it computes.
package invariant

// Check panics with msg if cond is false and checks are on.
func Check(cond bool, msg string) {
	if Enabled && !cond {
		panic("invariant: " + msg)
	}
}
