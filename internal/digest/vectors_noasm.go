//go:build !amd64 || purego

package digest

import "runtime"

// vectors is the most that the runtime copies at once through vector registers, in
// bytes: all sixteen of amd64. A variable, so that the compiler has it do that.
var vectors = 256

// clearVectors has zeroes go where the last copies went.
//
//go:noinline
func clearVectors() {
	var from, to [256]byte
	copy(to[:vectors], from[:vectors])
	runtime.KeepAlive(&to)
}
