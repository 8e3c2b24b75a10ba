package dataunittest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Alias returns the same n bytes at two addresses: ours, and those of somebody who
// shares the memory.
func Alias(t testing.TB, n int) (ours, theirs []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("dataunittest", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(n)); err != nil {
		t.Fatal(err)
	}
	var m [2][]byte
	for i := range m {
		if m[i], err = unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(m[i]) })
	}
	return m[0], m[1]
}

// Meanwhile calls other again and again on a second thread while it calls f, for
// long enough that they meet.
func Meanwhile(other, f func()) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	started := make(chan bool)
	wg.Go(func() {
		for first := true; !stop.Load(); first = false {
			other()
			if first {
				close(started)
			}
		}
	})
	defer wg.Wait()
	defer stop.Store(true)
	<-started
	for start := time.Now(); time.Since(start) < 20*time.Millisecond; {
		f()
	}
}
