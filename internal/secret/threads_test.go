package secret

import (
	"bytes"
	"os"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signalStack is the calling thread's signal stack. At its upper end the kernel writes
// the vector registers: above 512 bytes, which have the lower halves of 16 of them, and a
// header are upper halves.
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
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&s.sp)), s.size)
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
			s = s[len(s)-600:]
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

// A thread that has moved a secret and waits has nothing of it in the registers that a
// signal writes to its stack; one that has copied it does, or this test is blind.
func TestMoveLeavesNothingInVectorRegisters(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("knows where amd64 has vector registers")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stack := signalStack(t)
	var zeros [64]byte
	left := func(move func(dst, src []byte) int) (most int) {
		src, dst := bytes.Repeat([]byte{0xa9}, 64), make([]byte, 67)
		for range 100 { // whatever else comes between
			for i := range stack {
				stack[i] = 0
			}
			copy(dst, zeros[:]) // through the same registers
			move(dst, src)
			unix.RawSyscall(unix.SYS_TGKILL, uintptr(unix.Getpid()), uintptr(unix.Gettid()), uintptr(unix.SIGURG))
			n := 0
			for _, c := range stack {
				if c == 0xa9 {
					n++
				}
			}
			most = max(most, n)
		}
		if !bytes.Equal(dst, append(src, 0, 0, 0)) {
			t.Errorf("moved: %x", dst)
		}
		return most
	}
	if n := left(func(dst, src []byte) int { return copy(dst, src) }); n < 32 {
		t.Errorf("copy leaves %d bytes: the test is blind", n)
	}
	if n := left(Move); n > 16 { // two general registers
		t.Errorf("%d bytes are left", n)
	}
}

func TestMove(t *testing.T) {
	for n := range 40 {
		for m := range 40 {
			src, dst := make([]byte, n), make([]byte, m)
			for i := range src {
				src[i] = byte(i + 1)
			}
			want := make([]byte, m)
			if got := Move(dst, src); got != copy(want, src) || !bytes.Equal(dst, want) {
				t.Fatalf("%d bytes to %d: %d, %x", n, m, got, dst)
			}
		}
	}
}
