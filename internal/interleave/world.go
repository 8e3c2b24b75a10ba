package interleave

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A World is one run of a race. As a testing.TB it may be used by actors too.
type World struct {
	*testing.T

	// Ctx is for calls that may wait: it ends after Check, or when the run has failed.
	Ctx    context.Context
	cancel context.CancelFunc

	e      *explorer
	listed map[string]bool
	checks []func()
	came   chan struct{} // somebody stands at a point
	over   atomic.Bool   // the run has failed and says no more

	mu     sync.Mutex
	held   bool // actors stop at points
	named  int  // actors that Go started and that have not ended
	actors []*actor
	byID   map[uint64]*actor // by the runtime's number of the goroutine
}

// An actor is a goroutine that the explorer knows.
type actor struct {
	name   string
	id     uint64        // of the goroutine; the later it was started the higher, with one processor
	at     string        // the point where it stands; empty: it runs, or waits in the product
	pass   time.Duration // that it wants to pass before it goes on
	fresh  bool          // it has no name yet
	inGo   bool          // started by Go
	ended  bool
	resume chan struct{}
}

func newWorld(e *explorer, t *testing.T) *World {
	w := &World{T: t, e: e, listed: map[string]bool{}, came: make(chan struct{}, 1), byID: map[uint64]*actor{}}
	w.Ctx, w.cancel = context.WithCancel(context.Background())
	for _, p := range e.race.Points {
		w.listed[p] = true
	}
	e.mu.Lock()
	e.started++
	e.mu.Unlock()
	return w
}

// Go adds an actor. It starts when the explorer says so.
func (w *World) Go(name string, f func()) {
	if strings.ContainsAny(name, ",'") {
		panic("interleave: the name of an actor stands in a list: " + name)
	}
	a := &actor{name: name, at: "the start", inGo: true, resume: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(w.actors, func(b *actor) bool { return b.name == name }) {
		panic("interleave: two actors have the name " + name)
	}
	w.actors = append(w.actors, a)
	w.named++
	go func() {
		id := goroutine()
		defer w.end(a, id)
		w.mu.Lock()
		w.byID[id] = a
		w.mu.Unlock()
		<-a.resume
		if !w.over.Load() {
			f()
		}
	}()
}

// end is deferred by actors. What panics is reported with the schedule.
func (w *World) end(a *actor, id uint64) {
	if p := recover(); p != nil {
		w.Errorf("%s: panic: %v\n%s", a.name, p, debug.Stack())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	a.ended = true
	delete(w.byID, id)
	w.named--
}

// Check adds what is called when all actors have ended, with the points open.
func (w *World) Check(f func()) { w.checks = append(w.checks, f) }

// Outcome counts what happened in this run; see Race.Outcomes.
func (w *World) Outcome(o string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.e.outcomes[o]++
	if w.e.race.Outcomes != nil && !slices.Contains(w.e.race.Outcomes, o) {
		w.Errorf("outcome %q, want one of %q", o, w.e.race.Outcomes)
	}
}

// At is a point of a test double; its name need not be listed.
func (w *World) At(name string) { w.stop(name, 0) }

// Sleep lets time pass: timers that are due by then fire, and those that they wake run
// up to a point, while everybody else stands where he is.
func (w *World) Sleep(d time.Duration) { w.stop(fmt.Sprintf("before %v pass", d), d) }

// hook is what points call.
func (w *World) hook(name string, index int) {
	if !w.listed[name] || !inBubble() {
		return
	}
	at := name
	if index >= 0 {
		at = name + " " + strconv.Itoa(index)
	}
	w.mu.Lock()
	w.e.reached[name] = true
	w.mu.Unlock()
	w.stop(at, 0)
}

// inBubble tells whether the caller is a goroutine of the run, and not one that an
// earlier test has left behind: its clock began in the year 2000.
func inBubble() bool { return time.Now().Year() < 2010 }

// stop holds the caller until the explorer lets it go on.
func (w *World) stop(at string, pass time.Duration) {
	w.mu.Lock()
	if !w.held {
		w.mu.Unlock()
		return
	}
	id := goroutine()
	a := w.byID[id]
	if a == nil {
		a = &actor{id: id, fresh: true, resume: make(chan struct{}, 1)}
		w.byID[id] = a
		w.actors = append(w.actors, a)
	}
	a.at, a.pass = at, pass
	w.mu.Unlock()
	select {
	case w.came <- struct{}{}:
	default:
	}
	<-a.resume
}

// ready returns the actors that stand at a point, in an order that does not depend on
// the runtime, and names those that are new.
func (w *World) ready() []*actor {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ready []*actor
	for _, a := range w.actors {
		if a.at != "" {
			ready = append(ready, a)
		}
	}
	slices.SortFunc(ready, func(a, b *actor) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id))
	})
	for _, a := range ready {
		if a.fresh {
			w.nameNew(a)
		}
	}
	return ready
}

// nameNew names an actor that the product started by the point where it first came to
// light. Called with mu held.
func (w *World) nameNew(a *actor) {
	a.fresh = false
	for n := 1; ; n++ {
		name := "~" + strings.ReplaceAll(a.at, ",", "")
		if n > 1 {
			name += "#" + strconv.Itoa(n)
		}
		if !slices.ContainsFunc(w.actors, func(b *actor) bool { return b.name == name }) {
			a.name = name
			return
		}
	}
}

// resume lets a go on.
func (w *World) resume(a *actor) {
	w.e.mu.Lock()
	w.e.steps = append(w.e.steps, step{a.name, a.at})
	w.e.mu.Unlock()
	w.mu.Lock()
	a.at = ""
	w.mu.Unlock()
	if a.pass > 0 {
		time.Sleep(a.pass)
		synctest.Wait() // those whom a timer woke come to their points first
	}
	a.resume <- struct{}{}
}

// release makes points hold actors, or opens all for good.
func (w *World) release(held bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = held
	if held {
		return
	}
	for _, a := range w.actors {
		if a.at != "" {
			a.at = ""
			a.resume <- struct{}{}
		}
	}
}

// abandon lets actors that have not started end, if the run has failed before them.
func (w *World) abandon() {
	if w.Failed() {
		w.over.Store(true)
		w.release(false)
	}
}

// ended reports whether all actors that Go started have ended.
func (w *World) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.named == 0
}

// patience is how long, in the time of the bubble, nobody may come to a point before it
// counts as a deadlock. Timers of the product are shorter.
const patience = 24 * time.Hour

// timerFires waits until somebody comes to a point, or the last actor ends, because
// time passes. It reports whether that happened.
func (w *World) timerFires() bool {
	select {
	case <-w.came: // of an earlier step
	default:
	}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		select {
		case <-w.came:
			return true
		case <-time.After(time.Minute):
		}
		if w.ended() {
			return true
		}
	}
	return false
}

// waiting says who waits in the product, and where.
func (w *World) waiting() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var all []string
	for id, a := range w.byID {
		if a.inGo && !a.ended {
			all = append(all, fmt.Sprintf("%s waits:\n%s", a.name, stackOf(stacks, id)))
		}
	}
	slices.Sort(all)
	return "nobody can go on\n" + strings.Join(all, "\n")
}

// stackOf finds the stack of one goroutine in a dump of all.
func stackOf(dump []byte, id uint64) string {
	for s := range bytes.SplitSeq(dump, []byte("\n\n")) {
		if bytes.HasPrefix(s, fmt.Appendf(nil, "goroutine %d ", id)) {
			return string(s)
		}
	}
	return "?"
}

// goroutine is the runtime's number of the calling goroutine, which it tells nobody but
// in the head of a stack dump.
func goroutine() uint64 {
	var b [64]byte
	s := b[:runtime.Stack(b[:], false)]
	s = bytes.TrimPrefix(s, []byte("goroutine "))
	id, err := strconv.ParseUint(string(s[:bytes.IndexByte(s, ' ')]), 10, 64)
	if err != nil {
		panic("interleave: a stack dump of another form: " + err.Error())
	}
	return id
}
