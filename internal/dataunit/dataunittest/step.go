package dataunittest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"keyway/internal/race"
)

// A Stepper is a Cipher whose runs may number data unit k by dun + k·step.
type Stepper interface {
	EncryptStep(dst, src []byte, dun [4]uint64, step uint64)
	DecryptStep(dst, src []byte, dun [4]uint64, step uint64)
}

type narrowStepper interface {
	EncryptStep(dst, src []byte, dun [2]uint64, step uint64)
	DecryptStep(dst, src []byte, dun [2]uint64, step uint64)
}

type steppedNarrow struct {
	narrow
	s narrowStepper
}

func (n steppedNarrow) EncryptStep(dst, src []byte, dun [4]uint64, step uint64) {
	n.s.EncryptStep(dst, src, [2]uint64(dun[:2]), step)
}

func (n steppedNarrow) DecryptStep(dst, src []byte, dun [4]uint64, step uint64) {
	n.s.DecryptStep(dst, src, [2]uint64(dun[:2]), step)
}

// steps: a run whose numbers grow by a step is, unit by unit, what each number makes
// of a unit alone, which other tests hold against the reference, wherever the low half
// of the number, or all of it, wraps among the units of the run.
func (s Subject) steps(t *testing.T, name string) {
	r := seeded(t)
	unit, units := slices.Min(s.Units), 70
	if slices.Contains(s.Units, 512) {
		unit = 512
	}
	if slices.Contains(s.Slow, name) || short() {
		units = 34
	}
	key := Random(r, s.Keys[0])
	c := s.open(t, name, key, unit)
	stepper, ok := c.(Stepper)
	if !ok {
		t.Fatal("no EncryptStep")
	}
	const m = math.MaxUint64
	src := Random(r, unit*units)
	got, want := make([]byte, len(src)), make([]byte, len(src))
	steps := []uint64{8, 1, 3, m, 2, 4, 0, 16, 1 << 40}
	if short() {
		steps = steps[:4]
	}
	for _, step := range steps {
		back := uint64(r.IntN(units)) * step // so that the carry is among the units, at another place each time
		for _, dun := range [][4]uint64{{0, 0}, {m - back, 0}, {-back, 5}, {m - back, m}, {-back + 7, m, m, 3}, {-back - 1, m, m, m}} {
			if s.Limbs == 2 {
				dun[2], dun[3] = 0, 0
			}
			about := fmt.Sprintf("step %d from %x", step, dun)
			for k, d := 0, dun; k < units; k, d = k+1, Add(d, step, s.Limbs) {
				c.Encrypt(want[k*unit:][:unit], src[k*unit:][:unit], d)
			}
			stepper.EncryptStep(got, src, dun, step)
			Diff(t, about, got, want)
			stepper.DecryptStep(got, got, dun, step)
			Diff(t, about+", decrypted in place", got, src)
			for _, n := range []int{1, 3, 9, 17, 33} {
				clear(got)
				stepper.EncryptStep(got, src[:n*unit], dun, step)
				Diff(t, fmt.Sprintf("%s, %d units", about, n), got, want[:n*unit])
				Diff(t, about+": behind the output", got[n*unit:], make([]byte, unit))
			}
		}
	}
	stepper.EncryptStep(nil, nil, [4]uint64{}, 8)
	if n := testing.AllocsPerRun(20, func() {
		stepper.EncryptStep(got, src, [4]uint64{1}, 8)
		stepper.DecryptStep(got, got, [4]uint64{1}, 8)
	}); n != 0 && !race.Enabled {
		t.Errorf("%v allocations per call, want 0", n)
	}
}
