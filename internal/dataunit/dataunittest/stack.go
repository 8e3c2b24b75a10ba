package dataunittest

import (
	"bytes"
	"encoding/hex"
	"runtime/debug"
	"testing"
	"unsafe"
)

// stackSeen is how far below its caller Forgets looks: more than the frames of
// any cipher here.
const stackSeen = 24 << 10

// Forgets checks that f leaves none of the secrets, at least 8 bytes each, in the
// part of the stack that it used: that memory is neither locked nor wiped.
func Forgets(t *testing.T, f func(), secrets ...[]byte) {
	t.Helper()
	if seen := leftOnStack(func() { leave(secrets[0]) }); !bytes.Contains(seen, secrets[0]) {
		t.Fatal("a secret that was left on the stack on purpose is not found")
	}
	seen := leftOnStack(f)
	starts := map[[8]byte]bool{} // there may be thousands of secrets
	for i := range len(seen) - 7 {
		starts[[8]byte(seen[i:])] = true
	}
	for _, s := range secrets {
		if !starts[[8]byte(s)] {
			continue
		}
		if at := bytes.Index(seen, s); at >= 0 {
			t.Errorf("%s is left on the stack, %d bytes below the caller", hex.EncodeToString(s), len(seen)-at)
		}
	}
}

// leftOnStack runs f and returns what is on the stack below its caller.
func leftOnStack(f func()) []byte {
	// Collecting could shrink the stack, and take what is looked for away.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	seen := make([]byte, stackSeen)
	done := make(chan struct{})
	go func() {
		defer close(done)
		deep(stackSeen / 1024)
		f()
		lookBelow(seen)
	}()
	<-done
	return seen
}

// deep makes the stack grow now, not while f runs.
//
//go:noinline
func deep(n int) byte {
	var room [1024]byte
	if n > 0 {
		room[n] = deep(n - 1)
	}
	return room[n/2]
}

//go:noinline
func leave(secret []byte) byte {
	var room [2048]byte
	copy(room[200:], secret)
	return room[len(secret)/2]
}

// lookBelow copies the stack below its own frame, which is small. It calls
// nothing: that would write there.
//
//go:nocheckptr
//go:noinline
func lookBelow(seen []byte) {
	var here byte
	p := unsafe.Pointer(&here)
	for i := range seen {
		seen[i] = *(*byte)(unsafe.Add(p, i-len(seen)))
	}
}
