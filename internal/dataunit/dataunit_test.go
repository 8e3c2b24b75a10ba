package dataunit

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestChoiceTakesTheFirstSupportedOrTheForced(t *testing.T) {
	impls := []Impl[int]{{"wide", false, 1}, {"narrow", true, 2}, {"generic", true, 3}}
	if im, err := Choose("abacus", impls...).Best(); err != nil || im.Open != 2 {
		t.Errorf("chose %v, %v, want narrow", im, err)
	}
	t.Setenv("KEYWAY_ABACUS", "generic")
	c := Choose("abacus", impls...)
	if im, err := c.Best(); err != nil || im.Open != 3 {
		t.Errorf("forced generic: chose %v, %v", im, err)
	}
	if !slices.Equal(c.Names(), []string{"narrow", "generic"}) {
		t.Errorf("names %v", c.Names())
	}
	for _, name := range []string{"wide", "typo"} { // one that the CPU lacks, one that nobody knows
		t.Setenv("KEYWAY_ABACUS", name)
		c := Choose("abacus", impls...)
		_, err := c.Best()
		if err == nil || !strings.Contains(err.Error(), "KEYWAY_ABACUS=\""+name) || !strings.Contains(err.Error(), "narrow, generic") {
			t.Errorf("forced %s: %v", name, err)
		}
		if _, err := c.Named(name); err == nil {
			t.Errorf("named %s: accepted", name)
		}
	}
}

func TestNumbersCarryThroughEveryLimb(t *testing.T) {
	const m = math.MaxUint64
	if got := Add128([2]uint64{m, 4}, 3); got != [2]uint64{2, 5} {
		t.Error(got)
	}
	if got := Add128([2]uint64{m, m}, 1); got != [2]uint64{} {
		t.Error(got)
	}
	if got := Add256([4]uint64{m - 1, m, m, 4}, 3); got != [4]uint64{1, 0, 0, 5} {
		t.Error(got)
	}
	if got := Add256([4]uint64{m, m, m, m}, 1); got != [4]uint64{} {
		t.Error(got)
	}
}

func TestCheckPanicsOnMisuse(t *testing.T) {
	buf := make([]byte, 2048)
	if n := Check("x", 512, buf, buf[:1024]); n != 2 {
		t.Errorf("%d units, want 2", n)
	}
	if n := Check("x", 512, nil, nil); n != 0 {
		t.Errorf("%d units in nothing", n)
	}
	for what, f := range map[string]func(){
		"part of a unit": func() { Check("x", 512, buf, buf[:100]) },
		"short output":   func() { Check("x", 512, buf[:512], buf[:1024]) },
		"overlap above":  func() { Check("x", 512, buf[16:], buf[:1024]) },
		"overlap below":  func() { Check("x", 512, buf, buf[1023:2047]) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", what)
				}
			}()
			f()
		}()
	}
}
