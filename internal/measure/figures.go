package measure

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Median is the middle of v, which it sorts; 0 of nothing.
func Median(v []float64) float64 {
	n := len(v)
	if n == 0 {
		return 0
	}
	slices.Sort(v)
	if n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[n/2]
}

// Figure prints v, 0 or more, with two or three digits that tell something, in
// at most five columns up to 99999.
func Figure(v float64) string {
	switch {
	case v > 0 && v < 0.0995:
		return fmt.Sprintf("%.3f", v)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Machine says in a line what figures were measured on.
func Machine() string {
	model := runtime.GOARCH + " processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	s := "s"
	if runtime.NumCPU() == 1 {
		s = ""
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, %d processor%s, Linux %s, %s", model, runtime.NumCPU(), s, strings.TrimSpace(string(release)), runtime.Version())
}

// Terminal reports whether a person is likely to look at f.
func Terminal(f *os.File) bool {
	i, err := f.Stat()
	return err == nil && i.Mode()&os.ModeCharDevice != 0
}
