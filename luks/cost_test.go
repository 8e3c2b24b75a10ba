package luks

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A machine on which a pass over a KiB takes so long, after a start.
type machine struct{ start, block time.Duration }

func (m machine) run(passes, memory int) (time.Duration, error) {
	return m.start + time.Duration(passes*memory)*m.block, nil
}

func TestCostOfArgon2IsMetMemoryFirst(t *testing.T) {
	const gib = 1 << 20
	for _, c := range []struct {
		name           string
		machine        machine
		want           time.Duration
		least, most    int
		passes, memory int  // -1: any that meet the time
		missed         bool // the bounds do not let it be met
	}{
		{name: "memory below the most", machine: machine{0, 1 * time.Microsecond}, want: 2 * time.Second, least: 32, most: gib, passes: 4, memory: -1},
		{name: "fast machine, more passes", machine: machine{0, 100 * time.Nanosecond}, want: 2 * time.Second, least: 32, most: gib, passes: -1, memory: gib},
		{name: "little memory, many passes", machine: machine{time.Millisecond, 500 * time.Nanosecond}, want: time.Second, least: 32, most: 64 << 10, passes: -1, memory: 64 << 10},
		{name: "slow start", machine: machine{20 * time.Millisecond, time.Microsecond}, want: 500 * time.Millisecond, least: 32, most: gib, passes: 4, memory: -1},
		{name: "less than the least", machine: machine{0, time.Millisecond}, want: time.Millisecond, least: 32, most: gib, passes: 4, memory: 32, missed: true},
		{name: "first memory is too much", machine: machine{0, 50 * time.Microsecond}, want: time.Second, least: 32, most: gib, passes: 4, memory: -1},
	} {
		tried := 0
		p, m, err := findArgon2(c.want, c.least, c.most, func(passes, memory int) (time.Duration, error) {
			if passes < minPasses || memory < c.least || memory > c.most {
				t.Errorf("%s: tried %d passes of %d KiB", c.name, passes, memory)
			}
			tried++
			return c.machine.run(passes, memory)
		})
		if err != nil {
			t.Fatal(err)
		}
		if c.passes >= 0 && p != c.passes || c.memory >= 0 && m != c.memory {
			t.Errorf("%s: %d passes of %d KiB, want %d of %d", c.name, p, m, c.passes, c.memory)
		}
		// The next measure may have been the last: what counts is the guess.
		if took, _ := c.machine.run(p, m); !c.missed && (took < c.want*90/100 || took > c.want*110/100) {
			t.Errorf("%s: %d passes of %d KiB take %v, want %v", c.name, p, m, took, c.want)
		}
		if tried > 6 {
			t.Errorf("%s: %d measurements", c.name, tried)
		}
	}
}

// On a machine whose clock jumps the search ends all the same.
func TestSearchOfCostEnds(t *testing.T) {
	n := 0
	p, m, err := findArgon2(time.Second, 32, 1<<20, func(int, int) (time.Duration, error) {
		n++
		return []time.Duration{0, time.Hour}[n%2], nil
	})
	if err != nil || n > 20 || p < minPasses || m < 32 || m > 1<<20 {
		t.Errorf("%d passes of %d KiB after %d measurements: %v", p, m, n, err)
	}
	broken := errors.New("broken")
	if _, _, err := findArgon2(time.Second, 32, 1<<20, func(int, int) (time.Duration, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("%v, want what the measurement returned", err)
	}
}

func TestCostOfPBKDF2IsMet(t *testing.T) {
	for _, c := range []struct {
		each, want time.Duration
		n          int
	}{
		{time.Microsecond, time.Second, 1e6},
		{400 * time.Nanosecond, 2 * time.Second, 5e6},
		{10 * time.Millisecond, time.Second, minIterations}, // never less
		{time.Nanosecond, time.Hour, 1<<31 - 1},             // never more
	} {
		n, err := findIterations(c.want, func(n int) (time.Duration, error) { return time.Duration(n) * c.each, nil })
		if err != nil || n != c.n {
			t.Errorf("%v each: %d iterations for %v, want %d: %v", c.each, n, c.want, c.n, err)
		}
	}
}

func TestBenchmarkReturnsWhatOpens(t *testing.T) {
	ctx := context.Background()
	for _, c := range []Cost{
		{Type: "pbkdf2", Time: time.Millisecond},
		{Type: "pbkdf2", Hash: "sha512", Time: time.Millisecond, KeySize: 32},
		{Type: "argon2i", Time: time.Millisecond, Memory: 64, CPUs: 1},
		{Type: "argon2id", Time: time.Millisecond, Memory: 256},
	} {
		k, err := Benchmark(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		if k.Type != c.Type || k.Salt != nil || (k.Type == "pbkdf2") != (k.Iterations >= minIterations) ||
			(k.Type == "pbkdf2") != (k.Hash != "") || (k.Type != "pbkdf2") != (k.Time >= minPasses && k.Memory >= minMemory && k.CPUs >= 1) {
			t.Errorf("%+v: %+v", c, k)
		}
		if k.Type != "pbkdf2" && (k.Memory > max(c.Memory, 8*k.CPUs) || c.CPUs > 0 && k.CPUs > c.CPUs) {
			t.Errorf("%+v: %+v", c, k)
		}
		k.Salt = make([]byte, 32)
		if err := k.derive(ctx, make([]byte, 64), []byte("x")); err != nil {
			t.Errorf("%+v: %v", k, err)
		}
	}
	for _, c := range []Cost{{Type: "scrypt"}, {Time: -1}, {Memory: 31}, {Memory: maxMemory + 1}, {CPUs: 5}, {CPUs: -1}, {KeySize: -1}, {Type: "pbkdf2", Hash: "md4"}} {
		if k, err := Benchmark(ctx, c); err == nil {
			t.Errorf("%+v: %+v, want an error", c, k)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	for _, kind := range []string{"argon2id", "pbkdf2"} {
		if _, err := Benchmark(ctx, Cost{Type: kind}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want that it was cancelled", kind, err)
		}
	}
}
