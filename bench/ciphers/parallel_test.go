package main

import (
	"bytes"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/internal/measure"
)

// However a request is split, its ciphertext is the same, also where parts are
// unequal or there are more of them than data units.
func TestWaysGiveTheSameCiphertext(t *testing.T) {
	const unit = 4096
	s := measure.Subjects(blkcrypto.AES256XTS)[0]
	c, err := s.Open(unit)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	for _, size := range []int{unit, 3 * unit, 64 << 10, 100 * unit, 1 << 20} {
		src := make([]byte, size)
		for i := range src {
			src[i] = byte(i * 7)
		}
		want := make([]byte, size)
		dun := blkcrypto.DUN{1<<64 - 2, 5}
		c.Encrypt(want, src, dun)
		for _, w := range ways {
			for _, parts := range []int{2, 3, 7} {
				crypt, end := w.open(parts)
				for range 20 {
					have := make([]byte, size)
					crypt(&task{c: c, dst: have, src: src, unit: unit, dun: dun})
					if !bytes.Equal(have, want) {
						t.Fatalf("%s in %d parts of %d bytes: another ciphertext", w.name, parts, size)
					}
				}
				end()
			}
		}
	}
}

func TestBreakEvenHoldsForAllLargerSizes(t *testing.T) {
	r := &splitReport{Cores: 2, Unit: 4096}
	// Pays at 32K by chance, and from 128K on.
	for i, ratio := range []float64{2, 0.7, 1, 0.8, 0.6, 0.55, 0.5} {
		for _, c := range conditions {
			r.Splits = append(r.Splits,
				split{Mode: "m", Impl: "generic", Condition: c.name, Size: splitSizes[i], Way: "one", Parts: 1, P50: 100, CPU: 100, All: 1e9},
				split{Mode: "m", Impl: "generic", Condition: c.name, Size: splitSizes[i], Way: "helper", Parts: 2, P50: 100 * ratio, CPU: 120, All: 0.9e9})
		}
	}
	if have := r.breakEven("m", "generic", conditions[0].name, "helper", 2); have != 128<<10 {
		t.Errorf("pays from %d bytes on, want %d", have, 128<<10)
	}
	if have := r.breakEven("m", "generic", conditions[0].name, "worker", 2); have != 0 {
		t.Errorf("a way that was not measured pays from %d bytes on", have)
	}
}

func TestSplitReport(t *testing.T) {
	r := &splitReport{Cores: 2, Unit: 4096}
	for _, c := range conditions {
		for _, n := range []int{64 << 10, 256 << 10} {
			for i, w := range ways {
				r.Splits = append(r.Splits, split{Mode: "m", Impl: "generic", Condition: c.name, Size: n, Way: w.name, Parts: min(i+1, 2),
					P50: 100 / float64(i+1), P99: 200, CPU: 100, All: 1e9})
			}
		}
	}
	var b strings.Builder
	if err := r.markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| m generic | worker, 2 | 64K | 64K | 0.33 | 1.00 |", "| 256K | 100 200 | 50.0 200 (0.50, 1.00) |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
}
