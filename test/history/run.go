package history

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"keyway/dm"
)

// Stats counts what histories did.
type Stats struct {
	Histories map[Kind]int
	Steps     map[string]int
	Requests  map[string]int
	Failed    int // requests that had to fail, or might
	Evictions int
}

// NewStats returns zeroes.
func NewStats() *Stats {
	return &Stats{map[Kind]int{}, map[string]int{}, map[string]int{}, 0, 0}
}

func (s *Stats) String() string {
	var b strings.Builder
	total := 0
	for _, n := range s.Requests {
		total += n
	}
	sum := 0
	for _, n := range s.Histories {
		sum += n
	}
	fmt.Fprintf(&b, "%d histories:%s\n", sum, counts(s.Histories))
	fmt.Fprintf(&b, "%d requests:%s; %d failed as they had to\n", total, counts(s.Requests), s.Failed)
	fmt.Fprintf(&b, "%d evictions, %d reloads, %d crashes; steps:%s", s.Evictions, s.Steps["reload"], s.Steps["crash"], counts(s.Steps))
	return b.String()
}

func counts[K ~string](m map[K]int) (s string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s += fmt.Sprintf(" %s %d", k, m[k])
	}
	return s
}

// A Failure is what a history found.
type Failure struct {
	Seed  uint64
	Err   error
	Story string
	Steps []Step
}

// Parallel lets the steps of concurrent histories run on several cores. What
// happens between two things that wait is then another each time, and a seed need
// not show again what it has shown.
var Parallel bool

// Run runs the history of a seed with the given steps, and returns what it found
// or nil.
func Run(t *testing.T, seed uint64, steps []Step, stats *Stats) *Failure {
	if KindOf(seed) == Twins {
		return runTwins(t, seed, steps, stats)
	}
	h := runOne(t, seed, steps, asItIs, stats)
	return h.failure(steps)
}

// A ran is a history that has ended.
type ran struct {
	*history
	err   error
	media [][]byte
}

func (r *ran) failure(steps []Step) *Failure {
	if r.err == nil {
		return nil
	}
	story := r.String()
	if r.variant != asItIs {
		story = fmt.Sprintf("(%s)\n%s", r.variant, story)
	}
	return &Failure{r.seed, r.err, story, steps}
}

func runOne(t *testing.T, seed uint64, steps []Step, v variant, stats *Stats) (r *ran) {
	if KindOf(seed) == Concurrent && !Parallel {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, func(*testing.T) {
		h := &history{seed: seed, kind: KindOf(seed), variant: v, stats: stats}
		r = &ran{history: h}
		if r.err = h.setup(); r.err != nil {
			return
		}
		stats.Histories[h.kind]++
		r.err = h.play(steps)
		for _, d := range h.leaves {
			r.media = append(r.media, d.leaf.disk.content())
		}
		if err := h.demolish(); err != nil && r.err == nil {
			r.err = err
		}
	})
	return r
}

// play carries out the steps, and settles.
func (h *history) play(steps []Step) (err error) {
	defer func() {
		if err != nil {
			h.logf("FAILS: %v", err)
		}
	}()
	for _, s := range steps {
		h.tick()
		if !s.with {
			if err := h.wait(); err != nil {
				return err
			}
			h.tick() // what begins now is after what has ended
		}
		if err := h.do(s); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		if h.variant == restless {
			if err := h.fidget(); err != nil {
				return err
			}
		}
		if h.kind != Concurrent {
			if err := h.look(); err != nil {
				return err
			}
		}
	}
	h.tick()
	return h.settle()
}

// fidget makes a reload to the same table, or a suspension, which nobody may notice.
func (h *history) fidget() error {
	if !oneIn(h.extra, 3) {
		return nil
	}
	d := h.some(h.extra, false)
	if d == nil || d.paused || d.live() == nil || d.loaded != nil || h.blocks(d, false) {
		return nil
	}
	h.tick()
	m := h.real(d)
	// A table that no longer fits what is beneath it cannot be loaded again, and
	// messages have not reached a new one.
	moved := slices.ContainsFunc(d.live().rows, func(r *row) bool { return r.kind == "switch" || r.kind == "dust" })
	if t := d.live().again(); t.block == d.live().block && t.stands() && !moved && oneIn(h.extra, 2) {
		h.logf("(reload %s to the same)", d.name)
		real, err := h.build(t)
		if err != nil {
			return err
		}
		return m.Reload(background, real, dm.SuspendOptions{})
	}
	h.logf("(suspend and resume %s)", d.name)
	if err := m.Suspend(background, dm.SuspendOptions{}); err != nil {
		return err
	}
	return m.Resume(background)
}
