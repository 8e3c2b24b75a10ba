package history

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A kind of histories.
type Kind string

const (
	Sequential Kind = "sequential"
	Concurrent Kind = "concurrent"
	Twins      Kind = "twins"
)

// KindOf is the kind of the history of a seed: half of them sequential, a quarter
// each of the others.
func KindOf(seed uint64) Kind {
	switch seed % 4 {
	case 2:
		return Concurrent
	case 3:
		return Twins
	}
	return Sequential
}

// A Step is one thing that happens. What exactly follows from its seed and from
// what the steps before it have left, so that steps can be left out.
type Step struct {
	Name string
	seed uint64
	with bool // concurrent: it begins without waiting for the one before
}

func (s Step) String() string { return fmt.Sprintf("%s/%x", s.Name, s.seed) }

// names are the steps, and how often they come in each kind of histories.
var names = []struct {
	name                          string
	sequential, concurrent, twins int
}{
	{"request", 100, 100, 140},
	{"create", 9, 8, 10},
	{"reload", 14, 14, 14},
	{"load", 5, 5, 5},
	{"resume", 6, 10, 8},
	{"clear", 2, 2, 2},
	{"suspend", 5, 8, 3},
	{"remove", 3, 3, 3},
	{"rename", 2, 2, 2},
	{"key", 6, 6, 6},
	{"start", 4, 4, 2},
	{"stop", 2, 2, 2},
	{"evict", 5, 6, 4},
	{"evict-here", 4, 4, 4},
	{"reset", 4, 4, 4},
	{"message", 3, 0, 3},
	{"faults", 4, 4, 0},
	{"repair", 3, 3, 0},
	{"crash", 2, 2, 0},
	{"hold", 0, 8, 0},
	{"release", 0, 8, 0},
	{"sleep", 0, 2, 0},
	{"settle", 0, 5, 0},
}

// Generate returns the steps of a seed.
func Generate(seed uint64) []Step {
	kind := KindOf(seed)
	r := rand.New(rand.NewPCG(seed, 1))
	sum := 0
	weight := func(i int) int {
		switch kind {
		case Concurrent:
			return names[i].concurrent
		case Twins:
			return names[i].twins
		}
		return names[i].sequential
	}
	for i := range names {
		sum += weight(i)
	}
	// A history begins with something to stand on.
	all := []Step{{Name: "key"}, {Name: "create"}, {Name: "key"}, {Name: "create"}, {Name: "create"}}
	for range 20 + r.IntN(80) {
		at := r.IntN(sum)
		i := 0
		for at >= weight(i) {
			at -= weight(i)
			i++
		}
		all = append(all, Step{Name: names[i].name, with: kind == Concurrent && r.IntN(3) == 0})
	}
	for i := range all {
		all[i].seed = r.Uint64()
	}
	return all
}

// do carries out a step.
func (h *history) do(s Step) error {
	r := rand.New(rand.NewPCG(s.seed, 2))
	h.stats.Steps[s.Name]++
	switch s.Name {
	case "request":
		return h.request(r)
	case "create":
		return h.create(r)
	case "reload":
		return h.reload(r)
	case "load":
		return h.load(r)
	case "resume":
		return h.resume(r)
	case "clear":
		return h.clear(r)
	case "suspend":
		return h.suspend(r)
	case "remove":
		return h.remove(r)
	case "rename":
		return h.rename(r)
	case "key":
		return h.addKey(r)
	case "start":
		return h.startKey(r)
	case "stop":
		return h.stopKey(r)
	case "evict":
		return h.evict(r)
	case "evict-here":
		return h.evictHere(r)
	case "reset":
		return h.reset(r)
	case "message":
		return h.message(r)
	case "faults":
		return h.faults(r)
	case "repair":
		return h.repair()
	case "crash":
		return h.crash(r)
	case "hold":
		return h.hold(r, true)
	case "release":
		return h.hold(r, false)
	case "sleep":
		return h.sleep()
	case "settle":
		return h.settle()
	}
	panic("history: no step " + s.Name)
}

// pick returns one of all, the zero value if there is none.
func pick[T any](r *rand.Rand, all []T) (x T) {
	if len(all) == 0 {
		return x
	}
	return all[r.IntN(len(all))]
}

// oneIn is true once in n times.
func oneIn(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func indent(s string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n\t")
}
