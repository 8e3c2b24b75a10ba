package secret

import (
	"bytes"
	"errors"
	"testing"
	"unsafe"
)

const onStack = 256

// leave writes a pattern into its part of the stack, and tells where.
//
//go:noinline
//go:norace
func leave() uintptr {
	var p [onStack]byte
	for i := range p {
		p[i] = byte(i) ^ 0x5c
	}
	return use(&p)
}

//go:noinline
//go:norace
func use(p *[onStack]byte) uintptr { return uintptr(unsafe.Pointer(p)) }

// left counts the bytes of the pattern that are still at the place.
//
//go:noinline
//go:norace
//go:nosplit
func left(at uintptr) (n int) {
	for i := range uintptr(onStack) {
		if **(**byte)(unsafe.Pointer(&[]uintptr{at + i}[0])) == byte(i)^0x5c {
			n++
		}
	}
	return n
}

// In a build without the experiment Do leaves what f leaves: the test tells the
// two apart, so that it is not blind in a build with it.
func TestDoErasesTheStackWhereItCan(t *testing.T) {
	var at uintptr
	Do(func() { at = leave() })
	n := left(at)
	t.Logf("%d of %d bytes are left; Erases is %v", n, onStack, Erases)
	if Erases && n > onStack/8 {
		t.Errorf("%d of %d bytes are left on the stack", n, onStack)
	}
	if !Erases && n < onStack/2 {
		t.Errorf("%d of %d bytes are left on the stack: the test is blind", n, onStack)
	}
}

func TestDoPassesResultsAndPanicsOn(t *testing.T) {
	b := mustNew(t, 64)
	Do(func() { copy(b.Bytes(), "written inside") })
	if !bytes.HasPrefix(b.Bytes(), []byte("written inside")) {
		t.Error("what f wrote is not there")
	}
	// Key memory may run out or be taken inside, with its system calls and locks.
	Do(func() {
		c, err := New(100000)
		if err != nil {
			t.Error(err)
		}
		c.Wipe()
	})
	want := errors.New("inside")
	func() {
		defer func() {
			if got := recover(); got != want {
				t.Errorf("panic with %v, want %v", got, want)
			}
		}()
		Do(func() { panic(want) })
	}()
}
