package point_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"keyway/internal/point"
)

type marked struct{ n int }

//go:noinline
func (m *marked) work() int {
	point.At("marker of point_test: before the work")
	m.n++
	point.AtIndex("marker of point_test: after the work", m.n)
	return m.n
}

// TestPointsCostNothingInProduction looks for the names of the points above in the
// program that runs it: where nothing of a name is left, nothing of the call is.
func TestPointsCostNothingInProduction(t *testing.T) {
	if new(marked).work() != 1 {
		t.Fatal("a point changed the work")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"before", "after"} {
		name := strings.Join([]string{"marker of point_test", what + " the work"}, ": ")
		if got := bytes.Contains(program, []byte(name)); got != point.Enabled {
			t.Errorf("name %q in the program: %v, want %v", name, got, point.Enabled)
		}
	}
	if n := testing.AllocsPerRun(100, func() { new(marked).work() }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkWork(b *testing.B) {
	m := new(marked)
	for b.Loop() {
		m.work()
	}
}
