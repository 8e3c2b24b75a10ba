package slotstudy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func read(tb testing.TB, lines string, keep func(string) bool) *Load {
	tb.Helper()
	head := "keyway trace 1\nengine 1 32 \"e1\"\nengine 2 32 \"e2\"\n"
	for k := range 10 {
		head += fmt.Sprintf("key %d AES-256-XTS 4096 \"k%d\"\n", k, k)
	}
	l, _, err := Read(strings.NewReader(head+lines), keep)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// TestByHand: traces that are short enough to follow with a pencil.
func TestByHand(t *testing.T) {
	for _, tt := range []struct {
		name, lines    string
		program, evict time.Duration
		facts          Facts
		rows           []Row // for 1 slot and on
		enough         int
	}{
		{
			// With one slot each of the four is programmed, and what follows comes 5 later
			// each time.
			"two keys in turn",
			"read 1 1 0 0 1 0 10\nread 1 2 0 0 1 20 30\nread 1 1 0 0 1 40 50\nread 1 2 0 0 1 60 70\n",
			5, 0, Facts{Requests: 4, Keys: 2, Engines: 1, Peak: 1, Possible: 2, Span: 70, Truncated: true},
			[]Row{
				{Slots: 1, Programs: 4, Programming: 20, Added: 20},
				{Slots: 2, Hits: 2, Programs: 2, Programming: 10, Added: 10},
			}, 1,
		},
		{
			// The second waits from 10 to 100 and holds the slot for 40.
			"two keys at once",
			"write 1 1 0 0 1 0 100\nwrite 1 2 0 0 1 10 50\nend 2\n",
			0, 0, Facts{Requests: 2, Keys: 2, Engines: 1, Peak: 2, Span: 100},
			[]Row{
				{Slots: 1, Programs: 2, Waits: 1, Blocked: 1, Waited: 90, P50: 90, P99: 90, MaxWait: 90, Added: 40},
				{Slots: 2, Programs: 2},
			}, 1,
		},
		{
			// The second comes while the engine programs, and waits for that only.
			"one key twice",
			"read 1 1 0 0 1 0 10\nread 1 1 0 0 1 2 12\nend 2\n",
			5, 0, Facts{Requests: 2, Keys: 1, Engines: 1, Peak: 1, Possible: 1, Span: 12},
			[]Row{{Slots: 1, Hits: 1, Programs: 1, Waits: 1, Waited: 3, P50: 3, P99: 3, MaxWait: 3, Programming: 5, Added: 3}}, 0,
		},
		{
			// 0 to 15 with programming; evicted from 25 to 28; 38 to 53.
			"a key evicted and back",
			"read 1 1 0 0 1 0 10\nevict 1 1 20 30\nread 1 1 0 0 1 40 50\nend 3\n",
			5, 3, Facts{Requests: 2, Evictions: 1, Keys: 1, Engines: 1, Peak: 1, Span: 50},
			[]Row{{Slots: 1, Programs: 2, Evicted: 1, Programming: 13, Added: 3}}, 0,
		},
		{
			// The eviction waits for the request that came before it, until 100, and takes
			// until 107; the one that comes meanwhile is a hit.
			"an eviction waits for requests",
			"read 1 1 0 0 1 0 100\nevict 1 1 50 60\nread 1 1 0 0 1 55 65\nend 3\n",
			0, 7, Facts{Requests: 2, Evictions: 1, Keys: 1, Engines: 1, Peak: 1, Span: 100},
			[]Row{{Slots: 1, Hits: 1, Programs: 1, Evicted: 1, Programming: 7}}, 0,
		},
		{
			// First come, first served: 90 and 99 of waiting.
			"a queue",
			"read 1 1 0 0 1 0 100\nread 1 2 0 0 1 10 20\nread 1 3 0 0 1 11 21\nend 3\n",
			0, 0, Facts{Requests: 3, Keys: 3, Engines: 1, Peak: 3, Span: 100},
			[]Row{
				{Slots: 1, Programs: 3, Waits: 2, Blocked: 2, Waited: 189, P50: 90, P99: 99, MaxWait: 99, Added: 20},
				{Slots: 2, Programs: 3, Waits: 1, Blocked: 1, Waited: 9, P50: 9, P99: 9, MaxWait: 9},
				{Slots: 3, Programs: 3},
			}, 2,
		},
		{
			// Each engine has slots of its own; what uses none takes part in the order only.
			"two engines",
			"read 1 1 0 0 1 0 100\nread 2 1 0 0 1 10 20\nread 1 - - 0 1 30 40\nread 2 1 0 0 1 50 60\nend 4\n",
			0, 0, Facts{Requests: 3, Plain: 1, Keys: 2, Engines: 2, Peak: 1, Possible: 1, Span: 100},
			[]Row{{Slots: 1, Hits: 1, Programs: 2}}, 0,
		},
		{
			// What was released last goes last: at 60 key 2 goes, so 1 is a hit at 80. With
			// one slot key 2 waits until 50, and is done when key 3 comes.
			"least recently released",
			"read 1 1 0 0 1 0 50\nread 1 2 0 0 1 10 20\nread 1 3 0 0 1 60 70\nread 1 1 0 0 1 80 90\nend 4\n",
			0, 0, Facts{Requests: 4, Keys: 3, Engines: 1, Peak: 2, Possible: 1, Span: 90},
			[]Row{
				{Slots: 1, Programs: 4, Waits: 1, Blocked: 1, Waited: 40, P50: 40, P99: 40, MaxWait: 40},
				{Slots: 2, Hits: 1, Programs: 3},
			}, 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Program: tt.program, Evict: tt.evict, HitRate: 1}
			for i := range tt.rows {
				o.Slots = append(o.Slots, i+1)
			}
			st, err := Run(t.Context(), read(t, tt.lines, nil), o)
			if err != nil {
				t.Fatal(err)
			}
			if st.Facts != tt.facts {
				t.Errorf("facts %+v,\nwant  %+v", st.Facts, tt.facts)
			}
			for i := range tt.rows {
				if st.Rows[i] != tt.rows[i] {
					t.Errorf("got  %+v\nwant %+v", st.Rows[i], tt.rows[i])
				}
			}
			if st.Enough != tt.enough {
				t.Errorf("enough: %d, want %d", st.Enough, tt.enough)
			}
		})
	}
}

// TestOnlyEngine: the others are as if they were not there.
func TestOnlyEngine(t *testing.T) {
	lines := "read 1 1 0 0 1 0 100\nread 2 1 0 0 1 10 20\nread 1 - - 0 1 30 40\nread 2 2 0 0 1 50 60\nend 4\n"
	l := read(t, lines, func(name string) bool { return name == "e2" })
	if want := (Facts{Requests: 2, Keys: 2, Engines: 1, Peak: 1, Span: 50}); l.Facts() != want {
		t.Errorf("got %+v, want %+v", l.Facts(), want)
	}
	_, _, err := Read(strings.NewReader("keyway trace 1\nengine 1 32 \"e1\"\nread 1 - - 0 1 30 40\nend 1\n"), nil)
	if !errors.Is(err, ErrNothing) {
		t.Errorf("a trace without keys: %v, want %v", err, ErrNothing)
	}
}

// TestWithSlotsToSpareAllIsAsItWas: a replay in which nobody waits and programming takes
// no time is the trace.
func TestWithSlotsToSpareAllIsAsItWas(t *testing.T) {
	for seed := range uint64(20) {
		w := randomWorkload(rand.New(rand.NewPCG(seed, 6)))
		w.events = slices.DeleteFunc(w.events, func(e event) bool { return e.evict })
		r := newReplay(w.load(t), w.keys, 0, 0)
		r.observe = func(i int32, at int64) {
			if at != w.events[i].start {
				t.Errorf("seed %d: event %d began at %d, in the trace at %d", seed, i, at, w.events[i].start)
			}
		}
		r.run()
		if r.row.Added != 0 || r.row.Waits != 0 || r.row.Hits != r.l.facts.Possible {
			t.Errorf("seed %d: %+v, and %d hits are possible", seed, r.row, r.l.facts.Possible)
		}
	}
}

// TestMoreThanEnoughIsTheSame: Run replays no more than it must, and its rows are those
// of replays.
func TestMoreThanEnoughIsTheSame(t *testing.T) {
	saved := 0
	for seed := range uint64(40) {
		w := randomWorkload(rand.New(rand.NewPCG(seed, 7)))
		l := w.load(t)
		o := Options{Slots: []int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32}, Program: w.program, Evict: w.evict, HitRate: 0.99}
		st, err := Run(t.Context(), l, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range o.Slots {
			r := newReplay(l, n, int64(w.program), int64(w.evict))
			r.run()
			if st.Rows[i] != r.row {
				t.Errorf("seed %d: %+v, want %+v", seed, st.Rows[i], r.row)
			}
			if !r.replaced && r.row.Blocked == 0 {
				saved++
			}
		}
		if i := st.Enough; i < 0 || st.Rows[i].Blocked > 0 || float64(st.Rows[i].Hits) < 0.99*float64(st.Possible) {
			t.Errorf("seed %d: row %d is said to be enough", seed, i)
		}
		for _, r := range st.Rows[:st.Enough] {
			if r.Blocked == 0 && float64(r.Hits) >= 0.99*float64(st.Possible) {
				t.Errorf("seed %d: %d slots are enough, too", seed, r.Slots)
			}
		}
	}
	if saved < 100 {
		t.Errorf("%d replays need not be made: the traces are too hard", saved)
	}
}

func TestStudyIsCancelled(t *testing.T) {
	l := read(t, "read 1 1 0 0 1 0 10\n", nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	mine := errors.New("enough")
	cancel(mine)
	if _, err := Run(ctx, l, Options{Slots: []int{1}}); !errors.Is(err, mine) {
		t.Errorf("got %v, want %v", err, mine)
	}
}

func TestRank(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		all := make([]int64, 1+rng.IntN(200))
		for i := range all {
			all[i] = rng.Int64N(1 + rng.Int64N(100))
		}
		sorted := slices.Sorted(slices.Values(all))
		for _, percent := range []int{1, 50, 99, 100} {
			want := sorted[(len(all)*percent+99)/100-1]
			if got := rank(all, percent); got != want {
				t.Fatalf("%d %% of %v: %d, want %d", percent, sorted, got, want)
			}
		}
		if slices.Sort(all); !reflect.DeepEqual(all, sorted) {
			t.Fatal("rank lost a value")
		}
	}
}

// million is a trace of so many requests: 32 at a time, of 40 keys, some hotter.
func million(n int) string {
	rng := rand.New(rand.NewPCG(3, 3))
	var b strings.Builder
	b.WriteString("keyway trace 1\nengine 1 32 \"engine\"\n")
	for k := range 100 {
		fmt.Fprintf(&b, "key %d AES-256-XTS 4096 \"key %d\"\n", k, k)
	}
	var now [32]int64
	type line struct {
		end  int64
		text string
	}
	lines := make([]line, n)
	for i := range lines {
		at := &now[i%len(now)]
		start := *at + rng.Int64N(20_000)
		*at = start + 20_000 + rng.Int64N(100_000)
		key := min(rng.IntN(100), rng.IntN(100))
		lines[i] = line{*at, fmt.Sprintf("read 1 %d %d %d 4096 %d %d\n", key, i, i<<12, start, *at)}
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.end, b.end) })
	for _, l := range lines {
		b.WriteString(l.text)
	}
	fmt.Fprintf(&b, "end %d\n", n)
	return b.String()
}

// BenchmarkMillion reads a trace of a million requests, and replays it with 1 to 64
// slots.
func BenchmarkMillion(b *testing.B) {
	text := million(100_000)
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, _, err := Read(strings.NewReader(text), nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	l, _, err := Read(strings.NewReader(text), nil)
	if err != nil {
		b.Fatal(err)
	}
	var o Options
	for n := range 64 {
		o.Slots = append(o.Slots, n+1)
	}
	o.Program = 20 * time.Microsecond
	b.Run("study", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Run(b.Context(), l, o); err != nil {
				b.Fatal(err)
			}
		}
	})
}
