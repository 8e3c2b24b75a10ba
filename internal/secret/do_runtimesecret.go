//go:build goexperiment.runtimesecret

package secret

import (
	"runtime"
	"runtime/secret"
)

// Do calls f, which handles key bytes: a key is expanded, or derived from another.
// The registers and the stack that f used are overwritten before Do returns, or
// panics as f does, and what f allocated when it is collected (runtime/secret).
// Bulk work does not belong in it: f cannot be preempted.
func Do(f func()) { secret.Do(f) }

// Erases reports whether Do erases: the runtime can do it on linux/amd64 and
// linux/arm64, and elsewhere only calls f.
const Erases = runtime.GOOS == "linux" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")
