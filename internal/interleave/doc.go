// Package interleave runs every interleaving of a few goroutines at named points of
// the product: a test of a race that finds it, or shows that it is not there.
//
// # How to add a race
//
// Mark the places between which others may come, where the product does not have
// them yet (package point), and write a test under the build tags of the points:
//
//	//go:build invariants || race
//
//	func TestRace06EvictAgainstGet(t *testing.T) {
//		interleave.Run(t, interleave.Race{
//			Points:   []string{"keyslot: found", "keyslot: leaving"},
//			Outcomes: []string{"served", "refused"},
//			World: func(w *interleave.World) {
//				m, k := ... // fresh for each interleaving
//				w.Go("get", func() { ... w.Outcome("served") ... })
//				w.Go("evict", func() { ... m.EvictKey(w.Ctx, k) ... })
//				w.Check(func() { ... what must hold when both have ended ... })
//			},
//		})
//	}
//
// World builds one world: everything that the race may change is made in it, and a
// World is a testing.TB for the helpers that make it. The functions given to Go are
// the actors. They start one by one and one runs at a time: until it comes to one of
// Points, where it stops, or has to wait in the product, or ends. Then the explorer
// picks who goes on, and over all runs it picks everybody everywhere. Goroutines that
// the product starts become actors, named by the point, when they come to one; of several
// at one point, the first that was started is first. Check is called when all actors have
// ended.
//
// A test double may be a point as well: its function calls World.At with a name that
// need not be listed. Time stands still while anybody can run; World.Sleep lets it
// pass, so that timers fire, at a moment that the explorer chooses.
//
// Name few points. Two actors that stop at 3 points each have 70 interleavings, three
// such have 34,650. A race with too many fails and says so, unless it has a Sample.
// A listed point that nobody ever comes to is a failure too, since the race would be
// tested no more; so is an outcome that never occurs, or one that is not listed.
//
// Where an actor is woken by another (a channel, a mutex), it runs beside the one that
// woke it up to its next point. A point behind the place where it waited makes that
// deterministic; the explorer fails if it does not find again what it found before.
//
// Races of one package run one after the other, not in parallel tests: there is one
// hook for the points of the process, and GOMAXPROCS is 1 meanwhile.
//
// # When a race fails
//
// The schedule is printed as a list of who went on from where, with a line that runs
// it again:
//
//	KEYWAY_SCHEDULE='get,evict,get' go test -tags invariants -run '^TestRace06EvictAgainstGet$'
//
// # How it works
//
// Each interleaving is a run from the start in a new bubble of testing/synctest, whose
// Wait tells when all goroutines but the explorer have stopped for good. The explorer
// is a depth-first search: it repeats the choices of the run before up to the last one
// that had an alternative, takes that, and then always the first actor. Where nobody
// stands at a point and somebody has not ended, either a timer will fire or there is a
// deadlock.
//
// A sync.Mutex is the one thing on which synctest cannot see a goroutine wait. A point
// where one is held would stop the test for ever; a watchdog reports it.
package interleave
