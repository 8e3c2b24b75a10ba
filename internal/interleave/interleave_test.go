//go:build invariants || race

package interleave_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyway/internal/interleave"
	"keyway/internal/point"
)

// walk goes through n points, between which others may come n+1 times.
func walk(n int) {
	for range n {
		point.At("test: between")
	}
}

// TestEveryInterleavingRunsOnce against the multinomial coefficients.
func TestEveryInterleavingRunsOnce(t *testing.T) {
	for _, c := range []struct {
		points []int // of each actor, beside its start
		want   int
	}{
		{[]int{1}, 1},
		{[]int{2, 2}, 20},
		{[]int{3, 3}, 70},
		{[]int{1, 2}, 10},
		{[]int{1, 1, 1}, 90},
		{[]int{0, 0, 0, 4}, 336},
	} {
		t.Run(fmt.Sprint(c.points), func(t *testing.T) {
			seen := map[string]bool{}
			s := interleave.Run(t, interleave.Race{Points: []string{"test: between"}, World: func(w *interleave.World) {
				var order []byte
				for i, n := range c.points {
					w.Go(fmt.Sprint("a", i), func() {
						for range n {
							order = append(order, byte('0'+i))
							point.At("test: between")
						}
						order = append(order, byte('0'+i))
					})
				}
				w.Check(func() { seen[string(order)] = true })
			}})
			if s.Runs != c.want || !s.Complete || len(seen) != c.want {
				t.Errorf("%d runs with %d different orders, complete %v; want %d, all different", s.Runs, len(seen), s.Complete, c.want)
			}
		})
	}
}

func TestPointsThatAreNotListedDoNotStop(t *testing.T) {
	s := interleave.Run(t, interleave.Race{Points: []string{"test: between"}, World: func(w *interleave.World) {
		w.Go("a", func() { walk(1); point.At("test: elsewhere") })
		w.Go("b", func() { point.AtIndex("test: elsewhere", 1) })
	}})
	if s.Runs != 3 {
		t.Errorf("%d interleavings, want 3", s.Runs)
	}
}

// TestOutcomesAreCounted with two actors of whom either may be first.
func TestOutcomesAreCounted(t *testing.T) {
	s := interleave.Run(t, interleave.Race{Outcomes: []string{"a first", "b first"}, World: func(w *interleave.World) {
		var once sync.Once
		for _, n := range []string{"a", "b"} {
			w.Go(n, func() { once.Do(func() { w.Outcome(n + " first") }) })
		}
	}})
	if s.Outcomes["a first"] != 1 || s.Outcomes["b first"] != 1 {
		t.Errorf("outcomes %v, want each once", s.Outcomes)
	}
}

// TestWaitersAreNotRun: who waits for a channel is no choice until somebody has sent.
func TestWaitersAreNotRun(t *testing.T) {
	s := interleave.Run(t, interleave.Race{Points: []string{"test: between", "test: received"}, World: func(w *interleave.World) {
		c := make(chan int)
		got := 0
		w.Go("receiver", func() {
			got = <-c
			point.At("test: received")
			got++
		})
		w.Go("sender", func() { walk(1); c <- 1; walk(1) })
		w.Check(func() {
			if got != 2 {
				w.Errorf("got %d, want 2", got)
			}
		})
	}})
	// The receiver starts before either step of the sender or after both; then two
	// times one of two is next.
	if s.Runs != 6 {
		t.Errorf("%d interleavings, want 6", s.Runs)
	}
}

// TestGoroutinesOfTheProductBecomeActors, told apart by their index, or by the order in
// which they were started.
func TestGoroutinesOfTheProductBecomeActors(t *testing.T) {
	for name, child := range map[string]func(int){
		"index": func(i int) { point.AtIndex("test: child", i) },
		"order": func(int) { point.At("test: child") },
	} {
		t.Run(name, func(t *testing.T) { testChildren(t, child) })
	}
}

func testChildren(t *testing.T, child func(int)) {
	seen := map[string]bool{}
	s := interleave.Run(t, interleave.Race{Points: []string{"test: child"}, World: func(w *interleave.World) {
		var mu sync.Mutex
		order := ""
		w.Go("parent", func() {
			var wg sync.WaitGroup
			for i := range 3 {
				wg.Go(func() {
					child(i)
					mu.Lock()
					defer mu.Unlock()
					order += fmt.Sprint(i)
				})
			}
			wg.Wait()
		})
		w.Check(func() { seen[order] = true })
	}})
	if s.Runs != 6 || len(seen) != 6 {
		t.Errorf("%d interleavings with %d orders, want 6", s.Runs, len(seen))
	}
}

// TestTimePassesOnlyWhenNobodyCanRun, or when a world lets it.
func TestTimePassesOnlyWhenNobodyCanRun(t *testing.T) {
	interleave.Run(t, interleave.Race{Points: []string{"test: between", "test: timer"}, Outcomes: []string{"at once", "at its time"},
		World: func(w *interleave.World) {
			start := time.Now()
			fired := make(chan time.Duration, 1)
			time.AfterFunc(time.Second, func() {
				point.At("test: timer")
				fired <- time.Since(start)
			})
			w.Go("walker", func() {
				walk(1)
				select {
				case d := <-fired:
					w.Outcome("at its time")
					if d != time.Second {
						w.Errorf("fired after %v, want 1s", d)
					}
				default:
					w.Outcome("at once")
				}
			})
			w.Go("clock", func() { w.Sleep(time.Second) })
		}})
	interleave.Run(t, interleave.Race{World: func(w *interleave.World) {
		w.Go("waiter", func() { time.Sleep(time.Hour) })
	}})
}

// TestBroken has races that fail; TestFailuresAreReported runs them elsewhere.
func TestBroken(t *testing.T) {
	if os.Getenv("INTERLEAVE_BROKEN") == "" {
		return
	}
	between := []string{"test: between"}
	for name, r := range map[string]interleave.Race{
		"lost-update": {Points: between, World: func(w *interleave.World) {
			n := 0
			for _, a := range []string{"a", "b"} {
				w.Go(a, func() {
					seen := n
					point.At("test: between")
					n = seen + 1
				})
			}
			w.Check(func() {
				if n != 2 {
					w.Errorf("lost update: n is %d, want 2", n)
				}
			})
		}},
		"deadlock": {Points: between, World: func(w *interleave.World) {
			a, b := make(chan int, 1), make(chan int, 1)
			take := func(x, y chan int) {
				for _, c := range []chan int{x, y} {
					point.At("test: between")
					select {
					case c <- 1:
					case <-w.Ctx.Done():
					}
				}
				<-x
				<-y
			}
			w.Go("ab", func() { take(a, b) })
			w.Go("ba", func() { take(b, a) })
		}},
		"for-ever": {World: func(w *interleave.World) {
			w.Go("a", func() { <-make(chan int) })
		}},
		"woken-late": {World: func(w *interleave.World) {
			c := make(chan int)
			w.Go("a", func() { <-c; w.Error("too late"); w.Fatal("too late") })
			w.Cleanup(func() { close(c) })
		}},
		"fatal-world": {World: func(w *interleave.World) {
			w.Go("a", func() {})
			w.Fatalf("no %s", "world")
		}},
		"fatal-actor": {World: func(w *interleave.World) {
			w.Go("a", func() { w.Fatal("no", "actor") })
			w.Go("b", func() {})
		}},
		"fatal-check": {World: func(w *interleave.World) {
			w.Go("a", func() {})
			w.Check(func() { w.Fatal("no check") })
		}},
		"panic": {World: func(w *interleave.World) {
			w.Go("a", func() { panic("scripted") })
		}},
		"many": {Points: between, Max: 10, World: func(w *interleave.World) {
			w.Go("a", func() { walk(3) })
			w.Go("b", func() { walk(3) })
		}},
		"endless": {Points: between, World: func(w *interleave.World) {
			w.Go("a", func() { walk(100_000) })
		}},
		"never": {Points: []string{"test: nowhere"}, Outcomes: []string{"nothing"}, World: func(w *interleave.World) {
			w.Go("a", func() {})
		}},
		"unlisted": {Outcomes: []string{"this"}, World: func(w *interleave.World) {
			w.Go("a", func() { w.Outcome("this"); w.Outcome("that") })
		}},
		"random": {Points: between, World: func() func(w *interleave.World) {
			var runs atomic.Int64
			return func(w *interleave.World) {
				w.Go("a", func() { point.AtIndex("test: between", int(runs.Add(1))) })
				w.Go("b", func() {})
			}
		}()},
	} {
		t.Run(name, func(t *testing.T) { interleave.Run(t, r) })
	}
}

// broken runs one of TestBroken and returns what it printed.
func broken(t *testing.T, name string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.v", "-test.run=^TestBroken$/^"+name+"$")
	c.Env = append(append(os.Environ(), "INTERLEAVE_BROKEN=1"), env...)
	out, err := c.CombinedOutput()
	if err == nil {
		t.Errorf("%s: passed:\n%s", name, out)
	}
	return string(out)
}

func TestFailuresAreReported(t *testing.T) {
	for _, c := range []struct {
		name string
		want []string
	}{
		{"lost-update", []string{"lost update: n is 1, want 2", "a            from the start", "from test: between", "KEYWAY_SCHEDULE='a,b,a,b' go test"}},
		{"deadlock", []string{"interleave: deadlock", "ab waits", "ba waits", "interleave_test.go", "KEYWAY_SCHEDULE="}},
		{"for-ever", []string{"interleave: deadlock", "a waits", "KEYWAY_SCHEDULE='a'"}},
		{"woken-late", []string{"interleave: deadlock", "a waits", "KEYWAY_SCHEDULE='a'"}},
		{"fatal-world", []string{"no world", "KEYWAY_SCHEDULE=''"}},
		{"fatal-actor", []string{"no actor", "KEYWAY_SCHEDULE='a,b'"}},
		{"fatal-check", []string{"no check", "KEYWAY_SCHEDULE='a'"}},
		{"panic", []string{"a: panic: scripted", "interleave_test.go", "KEYWAY_SCHEDULE='a'"}},
		{"many", []string{"more than 10 interleavings"}},
		{"endless", []string{"no end after"}},
		{"never", []string{`no actor ever came to point "test: nowhere"`, `outcome "nothing" in none of 1`}},
		{"unlisted", []string{`outcome "that", want one of ["this"]`}},
		{"random", []string{"not deterministic"}},
	} {
		got := broken(t, c.name)
		if strings.HasPrefix(c.name, "fatal") && strings.Contains(got, "goroutines remain") {
			t.Errorf("%s: actors remain:\n%s", c.name, got)
		}
		if strings.Contains(got, "too late") || strings.Contains(got, "panic: Fail") {
			t.Errorf("%s: a run that has failed says more:\n%s", c.name, got)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: got\n%s\nwant %q in it", c.name, got, want)
			}
		}
	}
}

// TestSchedulesAreReplayed: the one that is printed fails in the same way, at once, and
// another passes.
func TestSchedulesAreReplayed(t *testing.T) {
	found := regexp.MustCompile(`KEYWAY_SCHEDULE='([^']*)'`).FindStringSubmatch(broken(t, "lost-update"))
	if found == nil {
		t.Fatal("no schedule is printed")
	}
	again := broken(t, "lost-update", "KEYWAY_SCHEDULE="+found[1])
	for _, want := range []string{"lost update: n is 1", "failed in interleaving 1:", found[0]} {
		if !strings.Contains(again, want) {
			t.Errorf("replay printed\n%s\nwant %q in it", again, want)
		}
	}
	if out := broken(t, "lost-update", "KEYWAY_SCHEDULE=a,c"); !strings.Contains(out, `step 2 of KEYWAY_SCHEDULE: "c" cannot go on; those who can: a at "test: between", b at "the start"`) {
		t.Errorf("a schedule that cannot be followed printed\n%s", out)
	}
	t.Setenv("KEYWAY_SCHEDULE", "b,a")
	var order string
	interleave.Run(t, interleave.Race{World: func(w *interleave.World) {
		w.Go("a", func() { order += "a" })
		w.Go("b", func() { order += "b" })
	}})
	if order != "ba" {
		t.Errorf("ran in order %q, want ba", order)
	}
}

// TestTooManyAreSampled with a seed, and the same ones each time.
func TestTooManyAreSampled(t *testing.T) {
	sample := func(seed uint64) (orders string) {
		s := interleave.Run(t, interleave.Race{Points: []string{"test: between"}, Max: 1, Sample: 20, Seed: seed, World: func(w *interleave.World) {
			for _, a := range []string{"a", "b"} {
				w.Go(a, func() {
					for range 4 {
						orders += a
						point.At("test: between")
					}
				})
			}
			w.Check(func() { orders += " " })
		}})
		if s.Complete || s.Runs != 21 {
			t.Errorf("%d runs, complete %v; want 21, a sample", s.Runs, s.Complete)
		}
		return orders
	}
	if a, b, c := sample(1), sample(1), sample(2); a != b || a == c {
		t.Errorf("schedules of seeds 1, 1, 2:\n%s\n%s\n%s\nwant the first two equal, the last different", a, b, c)
	}
}
