//go:build !goexperiment.runtimesecret

package secret

// Do calls f, which handles key bytes: a key is expanded, or derived from another.
// In a build with GOEXPERIMENT=runtimesecret the registers and the stack that f
// used are overwritten before Do returns, or panics as f does, and what f
// allocated when it is collected (runtime/secret); in others Do only calls f. Bulk
// work does not belong in it: f cannot be preempted.
func Do(f func()) { f() }

// Erases reports whether Do erases.
const Erases = false
