package interleave

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"keyway/internal/point"
)

// A Race is what Run explores.
type Race struct {
	Points   []string       // of the product, at which actors stop
	Outcomes []string       // what may happen (World.Outcome): each does at least once
	World    func(w *World) // builds one world
	Max      int            // interleavings; 0: 20,000
	Sample   int            // of the schedules that are tried if there are more than Max
	Seed     uint64         // of these; 0: 1
}

const defaultMax = 20_000

// A Summary is what Run found.
type Summary struct {
	Runs     int
	Complete bool // every interleaving, not a sample
	Outcomes map[string]int
}

// Run explores r and fails t at the first interleaving that fails.
func Run(t *testing.T, r Race) Summary {
	t.Helper()
	if !point.Enabled {
		t.Fatal("interleave: points are compiled in by -tags invariants or -race")
	}
	if r.Max == 0 {
		r.Max = defaultMax
	}
	// One goroutine at a time, also between a wake-up and the next point.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	e := &explorer{t: t, race: r, reached: map[string]bool{}, outcomes: map[string]int{}}
	defer e.watch()()

	if text, ok := os.LookupEnv("KEYWAY_SCHEDULE"); ok {
		e.follow(text)
		return e.summary()
	}
	for {
		if e.runs == r.Max {
			e.sample()
			break
		}
		e.run(e.searched)
		if t.Failed() {
			return e.summary()
		}
		if !e.next() {
			e.complete = true
			break
		}
	}
	e.judge()
	return e.summary()
}

// sample tries random schedules instead of all.
func (e *explorer) sample() {
	e.t.Helper()
	if e.race.Sample == 0 {
		e.t.Fatalf("interleave: more than %d interleavings: name fewer points, or set Sample", e.race.Max)
	}
	rng := newRandom(max(e.race.Seed, 1))
	e.t.Logf("interleave: more than %d interleavings: trying %d at random, seed %d", e.race.Max, e.race.Sample, max(e.race.Seed, 1))
	for range e.race.Sample {
		e.run(func(ready []*actor) int { return rng.IntN(len(ready)) })
		if e.t.Failed() {
			return
		}
	}
}

// judge looks at what all runs together must have shown.
func (e *explorer) judge() {
	e.t.Helper()
	for _, p := range e.race.Points {
		if !e.reached[p] {
			e.t.Errorf("interleave: no actor ever came to point %q", p)
		}
	}
	for _, o := range e.race.Outcomes {
		if e.outcomes[o] == 0 {
			e.t.Errorf("interleave: outcome %q in none of %d interleavings", o, e.runs)
		}
	}
	e.t.Log(e)
}

func (e *explorer) summary() Summary { return Summary{e.runs, e.complete, e.outcomes} }

// String is the summary in one line.
func (e *explorer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d interleavings", e.runs)
	var names []string
	for o := range e.outcomes {
		names = append(names, o)
	}
	slices.Sort(names)
	for i, o := range names {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s %d", sep, o, e.outcomes[o])
	}
	return b.String()
}
