package measure

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/hctr2"
	"keyway/internal/cipher"
)

// What the product can do is measured, in every implementation, and the one that
// is marked is the one that the product uses.
func TestEveryModeThatSoftwareHasIsMeasured(t *testing.T) {
	for _, m := range Modes() {
		all := Subjects(m)
		if (m == HCTR2 || cipher.Supported(m)) && len(all) == 0 {
			t.Errorf("%v is not measured: add its package to families", m)
		}
		used := 0
		for _, s := range all {
			if s.Default {
				used++
			}
		}
		if len(all) > 0 && used != 1 {
			t.Errorf("%v: %d implementations are marked as used, want 1", m, used)
		}
	}
}

// Names are those of modes, both ways; HCTR2, which is no mode of blkcrypto, is one here,
// and all its implementations are the same cipher.
func TestNamesOfModes(t *testing.T) {
	for _, m := range Modes() {
		if got, err := ParseMode(Name(m)); got != m || err != nil {
			t.Errorf("%q: %v, %v", Name(m), got, err)
		}
	}
	if _, err := ParseMode("HCTR2"); err == nil || !strings.Contains(err.Error(), "AES-256-XTS") || !strings.Contains(err.Error(), "AES-256-HCTR2") {
		t.Errorf("a name that is none: %v", err)
	}
	key, src := make([]byte, KeySize(HCTR2)), make([]byte, 3*512)
	for _, dun := range []blkcrypto.DUN{{5}, {1<<64 - 1, 7}} {
		p, err := hctr2.New(key, 512)
		if err != nil {
			t.Fatal(err)
		}
		want, have := make([]byte, len(src)), make([]byte, len(src))
		p.Encrypt(want, src, dun)
		p.Wipe()
		for _, s := range Subjects(HCTR2) {
			c, err := s.OpenKey(key, 512)
			if err != nil {
				t.Fatal(err)
			}
			c.Encrypt(have, src, dun)
			if !slices.Equal(have, want) {
				t.Errorf("%s by %s: another ciphertext than package hctr2", Name(s.Mode), s.Impl)
			}
			c.Wipe()
		}
	}
}

// All implementations of a mode are the same cipher as the product's.
func TestSubjectsAreTheProductsCiphers(t *testing.T) {
	for _, m := range blkcrypto.Modes() {
		if !cipher.Supported(m) {
			continue
		}
		for _, s := range Subjects(m) {
			key := make([]byte, m.KeySize())
			for i := range key {
				key[i] = byte(3*i + 1)
			}
			for _, unit := range []int{512, 4096} {
				src := make([]byte, 3*unit)
				want, have := make([]byte, len(src)), make([]byte, len(src))
				dun := blkcrypto.DUN{1<<63 + 5, 7}
				p, err := cipher.New(m, unit, key)
				if err != nil {
					t.Fatal(err)
				}
				p.Encrypt(want, src, dun)
				p.Wipe()
				c, err := s.OpenKey(key, unit)
				if err != nil {
					t.Fatal(err)
				}
				c.Encrypt(have, src, dun)
				if !slices.Equal(have, want) {
					t.Errorf("%v by %s, units of %d: another ciphertext than package cipher", m, s.Impl, unit)
				}
				c.Decrypt(have, have, dun)
				if !slices.Equal(have, src) {
					t.Errorf("%v by %s, units of %d: decryption does not give the plaintext", m, s.Impl, unit)
				}
				c.Wipe()
			}
		}
	}
}

// spin uses processor time.
func spin(d time.Duration) {
	for begin := ThreadCPU(); ThreadCPU()-begin < d; {
	}
}

func TestRateCountsCallsByProcessorTime(t *testing.T) {
	for _, cores := range []int{1, 3} {
		calls := make([]int, cores)
		const d = 30 * time.Millisecond
		begin := time.Now()
		rate := Rate(context.Background(), cores, d, func(core int) func() {
			return func() { calls[core]++; spin(100 * time.Microsecond); time.Sleep(200 * time.Microsecond) }
		})
		if took := time.Since(begin); took < d {
			t.Errorf("%d cores: over after %v, want %v", cores, took, d)
		}
		// A call takes 100 µs of a core and a little; that it sleeps does not count.
		if high, low := 10_000*float64(cores), 4_000*float64(cores); rate > high || rate < low {
			t.Errorf("%d cores: %.0f calls a second, want %.0f to %.0f", cores, rate, low, high)
		}
		for i, n := range calls {
			if n < 1 { // one is enough where the machine is busy
				t.Errorf("core %d of %d was not used", i, cores)
			}
		}
	}
}

func TestPaceCountsWaiting(t *testing.T) {
	n := 0
	pace := Pace(context.Background(), 20*time.Millisecond, func() { n++; time.Sleep(time.Millisecond) })
	if n < 1 || pace > 1000 || pace < 1 {
		t.Errorf("%d calls, %.1f a second, want at most 1000", n, pace)
	}
}

func TestRateOfOneSlowCall(t *testing.T) {
	n := 0
	rate := Rate(context.Background(), 1, time.Millisecond, func(int) func() {
		return func() { n++; spin(10 * time.Millisecond) }
	})
	if n != 1 || rate > 100 || rate < 50 {
		t.Errorf("%d calls, %.1f a second, want one and 50 to 100", n, rate)
	}
}

func TestRateEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	Rate(ctx, 1, time.Hour, func(int) func() {
		return func() {
			if n++; n == 3 {
				cancel()
			}
		}
	})
	if n < 3 {
		t.Errorf("%d calls before the end, want 3", n)
	}
}

func TestRigMeasuresBytes(t *testing.T) {
	r := NewRig(1<<16, 2)
	ctx, d := context.Background(), time.Millisecond
	for _, cores := range []int{1, 2} {
		if v := r.Copy(ctx, 1<<16, cores, d); v < 1e6 {
			t.Errorf("copy on %d cores: %g bytes a second", cores, v)
		}
		for _, bits := range r.Widths() {
			if v := r.Rounds(ctx, bits, cores, d); v < 1e6 {
				t.Errorf("%d-bit rounds on %d cores: %g a second", bits, cores, v)
			}
		}
	}
	if v := r.Rounds(ctx, 4711, 1, d); v != 0 {
		t.Errorf("rounds in vectors of 4711 bits: %g a second, want 0", v)
	}
}

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 4}, 4}, {[]float64{8, 1, 2, 4}, 3}} {
		if have := Median(tc.v); have != tc.want {
			t.Errorf("median of %v: %v, want %v", tc.v, have, tc.want)
		}
	}
}

func TestFigure(t *testing.T) {
	for _, tc := range []struct {
		v    float64
		want string
	}{{0, "0.00"}, {0.0042, "0.004"}, {0.0994, "0.099"}, {0.0996, "0.10"}, {1.006, "1.01"}, {13.94, "13.9"}, {128.4, "128"}} {
		if have := Figure(tc.v); have != tc.want {
			t.Errorf("%v: %q, want %q", tc.v, have, tc.want)
		}
	}
}
