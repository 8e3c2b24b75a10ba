// Package point names the places in product code where another goroutine may come
// between, so that a test can make it come (package interleave).
//
//	point.At("keyslot: found")
//
// says that between the lines above and the lines below, anything may happen. The
// name is "package: what has just been done", or "package: doing" where a call of
// something foreign follows. At a place that several goroutines reach at the same
// moment, AtIndex tells them apart.
//
// In production both are empty functions, which the compiler inlines to nothing;
// they are live under the build tags of package invariant, "invariants" and "race".
// The index should be a variable or a field, since a call that computes it would
// stay.
//
// A goroutine may be held at a point while others run. So no point lies where a
// sync.Mutex is held: nobody could run past it.
package point

// A Hook is called at every point. index is -1 for At.
type Hook func(name string, index int)
