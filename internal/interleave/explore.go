package interleave

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyway/internal/point"
)

// An explorer searches the tree of choices of one race, depth first.
type explorer struct {
	t    *testing.T
	race Race

	path     []choice // of the run under way, or of the last one
	depth    int      // the choices that were made in the run under way
	runs     int
	complete bool
	reached  map[string]bool // points
	outcomes map[string]int

	mu      sync.Mutex // against the watchdog
	started int        // runs
	steps   []step     // of the run under way
}

// A choice is a place in the tree: who could go on, and who did.
type choice struct {
	ready string // for comparison
	n     int    // of them
	taken int
}

// A step is one line of a schedule.
type step struct {
	actor string
	from  string // where it stood
}

// maxSteps of a run; more is an endless loop.
const maxSteps = 10_000

// watchdog is how long, in true time, nothing may happen.
const watchdog = 30 * time.Second

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// next makes the path that of the next run. It reports whether there is one.
func (e *explorer) next() bool {
	for i := len(e.path) - 1; i >= 0; i-- {
		if e.path[i].taken+1 < e.path[i].n {
			e.path[i].taken++
			e.path = e.path[:i+1]
			return true
		}
	}
	return false
}

// searched is the choice of the search: the path as far as it is given, and then the
// first.
func (e *explorer) searched(ready []*actor) int {
	at := describe(ready)
	if e.depth == len(e.path) {
		e.path = append(e.path, choice{ready: at, n: len(ready)})
	}
	c := e.path[e.depth]
	e.depth++
	if c.ready != at {
		e.t.Errorf("interleave: not deterministic: after the same steps there were\n  %s\nand now\n  %s", c.ready, at)
		return 0
	}
	return c.taken
}

func describe(ready []*actor) string {
	var all []string
	for _, a := range ready {
		all = append(all, fmt.Sprintf("%s at %q", a.name, a.at))
	}
	return strings.Join(all, ", ")
}

// run runs one interleaving in a world of its own.
func (e *explorer) run(choose func([]*actor) int) {
	e.t.Helper()
	e.runs++
	e.depth = 0
	e.mu.Lock()
	e.steps = e.steps[:0]
	e.mu.Unlock()
	failed := true // unless the bubble ends as it should
	defer func() {
		if p := recover(); p != nil { // goroutines remain that nobody can wake
			e.t.Errorf("interleave: %v", p)
		}
		if failed {
			e.t.Errorf("interleave: failed in interleaving %d:\n%s", e.runs, e.schedule())
		}
	}()
	synctest.Test(e.t, func(t *testing.T) { newWorld(e, t).run(choose) })
	failed = e.t.Failed()
}

// run lets the actors go on one by one, until all have ended, and checks.
func (w *World) run(choose func([]*actor) int) {
	defer w.cancel()
	defer w.abandon()
	w.e.race.World(w)
	point.SetHook(w.hook)
	defer point.SetHook(nil)
	w.release(true)
	for n := 0; ; n++ {
		synctest.Wait()
		ready := w.ready()
		if len(ready) == 0 {
			if w.ended() {
				break
			}
			if w.timerFires() {
				continue
			}
			w.Errorf("interleave: deadlock: %s", w.waiting())
			break
		}
		if n == maxSteps {
			w.Errorf("interleave: no end after %d steps", n)
			break
		}
		w.resume(ready[choose(ready)])
	}
	// Points are open from here on.
	w.over.Store(w.Failed())
	w.release(false)
	if w.Failed() {
		w.cancel()
		synctest.Wait()
		return
	}
	for _, check := range w.checks {
		check()
	}
}

// watch reports, in true time, that a run hangs where synctest cannot see it.
func (e *explorer) watch() (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(watchdog)
		defer tick.Stop()
		for runs, last := 0, -1; ; {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			e.mu.Lock()
			n := len(e.steps)
			same := e.started == runs && n == last
			runs, last = e.started, n
			e.mu.Unlock()
			if same {
				panic("interleave: nothing happens: does somebody stand at a point with a sync.Mutex held?\n" + e.schedule())
			}
		}
	}()
	return func() { close(done) }
}

// follow runs the schedule in text, a list of actors.
func (e *explorer) follow(text string) {
	e.t.Helper()
	var names []string
	if text != "" {
		names = strings.Split(text, ",")
	}
	i := 0
	e.run(func(ready []*actor) int {
		if i >= len(names) {
			return 0 // the rest is the search's habit
		}
		name := strings.TrimSpace(names[i])
		i++
		n := slices.IndexFunc(ready, func(a *actor) bool { return a.name == name })
		if n < 0 {
			e.t.Errorf("interleave: step %d of KEYWAY_SCHEDULE: %q cannot go on; those who can: %s", i, name, describe(ready))
			return 0
		}
		return n
	})
	if !e.t.Failed() {
		e.t.Logf("the schedule passes:\n%s", e.schedule())
	}
}

// schedule is the run for people.
func (e *explorer) schedule() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b strings.Builder
	var names []string
	for i, s := range e.steps {
		fmt.Fprintf(&b, "  %3d  %-12s from %s\n", i+1, s.actor, s.from)
		names = append(names, s.actor)
	}
	name := strings.ReplaceAll(e.t.Name(), "/", "$/^")
	fmt.Fprintf(&b, "  KEYWAY_SCHEDULE='%s' go test -tags invariants -run '^%s$'", strings.Join(names, ","), name)
	return b.String()
}
