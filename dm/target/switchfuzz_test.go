package target

import (
	"slices"
	"strings"
	"testing"
)

// FuzzRegionMappings: no message breaks the region table, and one that is
// refused leaves it alone.
func FuzzRegionMappings(f *testing.F) {
	for _, s := range []string{"0:2 :1", "1:0 :2 r2,8", "R1,f", "f:1 :0", ":2 R1,", "a:a", "r0,0", "ffffffffffffffff:0", ":", "", "R1,1 0:1 R2,e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := &switching{paths: make([]stripe, 3)}
		before := []uint16{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0}
		table := slices.Clone(before)
		s.table.Store(&table)
		words := append([]string{"set_region_mappings"}, strings.Split(text, " ")...)
		_, err := s.Message(t.Context(), words)
		after := *s.table.Load()
		if err != nil && !slices.Equal(after, before) {
			t.Errorf("%q was refused (%v) and the table is %v", text, err, after)
		}
		if len(after) != len(before) || slices.Max(after) > 2 || !slices.Equal(table, before) {
			t.Errorf("%q makes the table %v, and the one in use %v", text, after, table)
		}
	})
}
