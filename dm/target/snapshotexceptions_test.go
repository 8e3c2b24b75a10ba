package target

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// TestExceptionsAreSmall: what one takes, averaged over how full maps may be. It is
// measured in a process of its own, whose heap has nothing that other tests left
// behind to be freed meanwhile.
func TestExceptionsAreSmall(t *testing.T) {
	const alone = "KEYWAY_TEST_EXCEPTIONS"
	if os.Getenv(alone) == "" {
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		c.Env = append(os.Environ(), alone+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, c := range []struct {
		name string
		at   int64
		most float64 // bytes
	}{{"near", 0, 20}, {"far", 1 << 32, 36}} {
		var x exceptions
		before, sum := heap(), 0.0
		const n, steps = 64 << 10, 4
		for i := int64(0); i < n; {
			for range n / 2 / steps {
				x.put(exception{c.at + i, i})
				i++
			}
			if i > n/2 {
				sum += float64(heap()-before) / float64(i)
			}
		}
		if got := sum / steps; got > c.most {
			t.Errorf("%s: %.1f bytes, want at most %v", c.name, got, c.most)
		}
		for i := range int64(n) {
			if to, ok := x.get(c.at + i); !ok || to != i {
				t.Fatalf("%s: chunk %d is %d, %v", c.name, c.at+i, to, ok)
			}
		}
		if _, ok := x.get(n); ok {
			t.Errorf("%s: a chunk that is not there", c.name)
		}
		if got := len(x.places()); got != n {
			t.Errorf("%s: %d places", c.name, got)
		}
		runtime.KeepAlive(&x)
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
