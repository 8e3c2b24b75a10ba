package secret

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signalStack is the upper end of the calling thread's signal stack, where the kernel
// writes the vector registers: above 512 bytes of others and a header are the upper
// halves of 16 of them.
func signalStack(t *testing.T) []byte {
	var s struct {
		sp    uintptr
		flags int32
		size  uintptr
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(&s)), 0); errno != 0 || s.size == 0 {
		t.Errorf("no signal stack: %v", errno)
		return nil
	}
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&s.sp)), s.size)[s.size-600:]
}

// What a signal has left on the stacks of threads that run, that wait in Go and that
// wait in the kernel is overwritten.
func TestRegistersOnSignalStacksAreOverwritten(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("knows where amd64 has vector registers")
	}
	const mark = 0xa9
	left := func(s []byte) (n int) {
		for _, c := range s {
			if c == mark {
				n++
			}
		}
		return n
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fd := int(r.Fd()) // blocking
	const threads = 6
	var marked, ended sync.WaitGroup
	release, spin := make(chan struct{}), make(chan struct{})
	marked.Add(threads)
	for i := range threads {
		ended.Go(func() {
			runtime.LockOSThread() // and the thread ends with it
			s := signalStack(t)
			for i := range s { // copy would leave the mark in vector registers
				s[i] = mark
			}
			if n := left(s); n < 500 {
				t.Errorf("thread %d: %d bytes of the mark are left before anything: the test is blind", i, n)
			}
			marked.Done()
			switch i % 3 {
			case 0:
				<-release
			case 1:
				for done := false; !done; {
					select {
					case <-spin:
						done = true
					default:
					}
				}
			case 2:
				unix.Read(fd, make([]byte, 1))
			}
			if n := left(s); n > 130 { // what the format of XSAVE leaves out
				t.Errorf("thread %d: %d bytes of 600 are left", i, n)
			}
		})
	}
	marked.Wait()
	OverwriteRegisters()
	close(release)
	close(spin)
	w.Close()
	ended.Wait()
	r.Close()
}

func BenchmarkOverwriteRegisters(b *testing.B) {
	for b.Loop() {
		OverwriteRegisters()
	}
}
