package history

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("history.seed", 0, "the first seed; 0 takes another one each time")
	timeFlag  = flag.Duration("history.time", 0, "how long to run; 0: 30 s, or 5 s with -short")
	kindFlag  = flag.String("history.kind", "", "only histories of one kind: sequential, concurrent or twins")
	countFlag = flag.Int("history.count", 0, "how many histories to run; 0: as many as there is time for")
)

func init() {
	flag.BoolVar(&Parallel, "history.parallel", false, "concurrent histories on several cores: a seed need not show again what it has shown")
}

// TestHistories runs random histories until the time is over. One that fails can
// be run again by its seed alone.
func TestHistories(t *testing.T) {
	seed, budget := *seedFlag, *timeFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) << 8 // so that seeds of two runs do not meet
	}
	if budget == 0 {
		budget = 30 * time.Second // CI runs everything twice
		if testing.Short() {
			budget = 5 * time.Second
		}
	}
	fmt.Printf("histories from seed %d on\n", seed) // a panic would lose a log
	stats := NewStats()
	begin := time.Now()
	for i := 0; time.Since(begin) < budget && (*countFlag == 0 || i < *countFlag); i++ {
		s := seed + uint64(i)
		if k := KindOf(s); *kindFlag != "" && string(k) != *kindFlag {
			continue
		}
		f := Run(t, s, Generate(s), stats)
		if f == nil {
			continue
		}
		found, steps := f.Err, len(f.Steps)
		f = Shrink(t, f, time.Minute)
		t.Fatalf("seed %d: %s history: %v\nrun it again: go test ./test/history -run TestHistories -history.seed=%d -history.count=1 -v\n"+
			"%d of its %d steps are enough for: %v\n%s", s, KindOf(s), found, s, len(f.Steps), steps, f.Err, f.Story)
	}
	t.Logf("%.1f s: %v", time.Since(begin).Seconds(), stats)
}
