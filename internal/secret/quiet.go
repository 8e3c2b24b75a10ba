package secret

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Quiet calls f on a thread to which no signals are delivered meanwhile. The kernel
// saves all registers of a thread when it delivers one, on a stack that nobody
// wipes; the Go runtime sends them to preempt goroutines, so a computation of some
// milliseconds gets one before long. f clears the vector registers, or leaves
// nothing in them, before it returns.
//
// Without signals f is preempted only where it calls a Go function that is not
// inlined: between these it takes no longer than some microseconds, or the garbage
// collector has everybody wait for it.
func Quiet(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old unix.Sigset_t
	// It cannot fail: the arguments are good.
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &quiet, &old); err != nil {
		panic("secret: block signals: " + err.Error())
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	f()
}

// quiet has all signals but those of a thread's own faults: with these blocked it
// would end without a word.
var quiet = func() (s unix.Sigset_t) {
	for i := range s.Val {
		s.Val[i]--
	}
	for _, signal := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGSYS} {
		n := int(signal)
		per := 1024 / len(s.Val) // bits in a word
		s.Val[(n-1)/per] &^= 1 << ((n - 1) % per)
	}
	return s
}()
