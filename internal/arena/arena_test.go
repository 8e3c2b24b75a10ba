package arena

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"keyway/internal/invariant"
)

func TestBuffersAreAlignedAndLargeEnough(t *testing.T) {
	for _, n := range []int{1, 511, 4096, 4097, 8192, 12345, 32 << 10, 32<<10 + 1, 64 << 10, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5 << 20, Max} {
		b := Get(n)
		p := b.Bytes()
		if len(p) != n || b.Len() != n {
			t.Errorf("Get(%d): %d bytes, Len %d", n, len(p), b.Len())
		}
		if misaligned(p) != 0 {
			t.Errorf("Get(%d): at %p, not aligned to %d", n, &p[0], Align)
		}
		if cap(p)%Align != 0 || cap(p) < n || n > 4096 && cap(p) >= 2*n+Align {
			t.Errorf("Get(%d): capacity %d", n, cap(p))
		}
		p[0], p[n-1] = 1, 2
		p = p[:cap(p)]
		p[len(p)-1] = 3
		b.Put()
	}
	(*Buf)(nil).Put()
}

func TestSizesOutOfRangePanic(t *testing.T) {
	for _, n := range []int{0, -1, Max + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Get(%d) returned", n)
				}
			}()
			Get(n)
		}()
	}
}

func TestNoAllocationInSteadyState(t *testing.T) {
	if invariant.Enabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
	for _, n := range []int{512, 4096, 65536, 1 << 20} {
		Get(n).Put()
		if a := testing.AllocsPerRun(1000, func() { Get(n).Put() }); a != 0 {
			t.Errorf("Get(%d) and Put: %v allocations, want 0", n, a)
		}
	}
}

func TestNoBufferIsLentToTwoBorrowers(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			mark := bytes.Repeat([]byte{byte(g + 1)}, 8192)
			for range 300 {
				a, b := Get(8192), Get(5000)
				copy(a.Bytes(), mark)
				copy(b.Bytes(), mark)
				if !bytes.Equal(a.Bytes(), mark) || !bytes.Equal(b.Bytes(), mark[:5000]) {
					t.Error("buffer changed while lent")
				}
				a.Put()
				b.Put()
			}
		})
	}
	wg.Wait()
}

func TestUseAfterPutAndDoublePutShowInCheckedBuilds(t *testing.T) {
	if !invariant.Enabled {
		t.Skip("needs the build tag invariants, or -race")
	}
	b := Get(4096)
	p := b.Bytes()
	clear(p)
	b.Put()
	if p[0] != poison || p[4095] != poison {
		t.Error("a returned buffer keeps its content")
	}
	defer func() {
		if recover() == nil {
			t.Error("second Put passed")
		}
	}()
	b.Put()
}

func TestDirectIOAcceptsBuffers(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o600)
	if err != nil {
		t.Skipf("no O_DIRECT in %s: %v", os.TempDir(), err)
	}
	defer unix.Close(fd)
	for _, n := range []int{4096, 64 << 10, 2 << 20} {
		b := Get(n)
		for i := range b.Bytes() {
			b.Bytes()[i] = byte(i * 7)
		}
		if got, err := unix.Pwrite(fd, b.Bytes(), 0); err != nil || got != n {
			t.Fatalf("direct write of %d: %d, %v", n, got, err)
		}
		r := Get(n)
		if got, err := unix.Pread(fd, r.Bytes(), 0); err != nil || got != n {
			t.Fatalf("direct read of %d: %d, %v", n, got, err)
		}
		if !bytes.Equal(b.Bytes(), r.Bytes()) {
			t.Errorf("%d bytes read back differ", n)
		}
		b.Put()
		r.Put()
	}
}

func BenchmarkGetPut(b *testing.B) {
	for _, n := range []int{4096, 64 << 10, 1 << 20, 2 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					buf := Get(n)
					buf.Bytes()[0] = 1
					buf.Put()
				}
			})
		})
	}
}
