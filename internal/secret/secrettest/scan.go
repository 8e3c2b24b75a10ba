package secrettest

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"keyway/internal/race"
)

// Count tells how often each word is in the memory of a process that may be read by
// this one: of all mappings that can be written to, as /proc/PID/mem shows them.
// Hidden memory it does not show. Under the race detector, whose shadow of the memory
// is larger than it, the test is skipped.
func Count(t *testing.T, pid int, words map[string][]byte) map[string]int {
	t.Helper()
	if race.Enabled {
		t.Skip("the memory of the race detector is too much to look through")
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	found, total := map[string]int{}, 0
	for line := range strings.Lines(string(maps)) {
		var lo, hi int64
		var perm string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &lo, &hi, &perm); n != 3 || perm[:2] != "rw" {
			continue
		}
		b := make([]byte, hi-lo)
		n, _ := mem.ReadAt(b, lo)
		total += n
		for at := 0; at < n; at += len(zeroes) {
			if bytes.Equal(b[at:min(at+len(zeroes), n)], zeroes[:min(len(zeroes), n-at)]) {
				continue // as most of it is
			}
			for name, w := range words { // those that begin in this piece
				found[name] += bytes.Count(b[at:min(at+len(zeroes)+len(w)-1, n)], w)
			}
		}
	}
	if total < 1<<20 {
		t.Fatalf("only %d bytes of process %d could be read", total, pid)
	}
	return found
}

var zeroes [4096]byte
