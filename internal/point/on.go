//go:build invariants || race

package point

import "sync/atomic"

// Enabled tells whether points are compiled in.
const Enabled = true

var hook atomic.Pointer[Hook]

// SetHook has h called at every point, by whatever goroutine is there; nil ends that.
func SetHook(h Hook) {
	if h == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&h)
}

// At marks a place where others may come between.
func At(name string) { AtIndex(name, -1) }

// AtIndex is At where several goroutines may be at the same time, told apart by i.
func AtIndex(name string, i int) {
	if h := hook.Load(); h != nil {
		(*h)(name, i)
	}
}
