package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// measuredDM is a report with made-up figures, all of which just meet their aims,
// or just do not.
func measuredDM(meets bool) *dmReport {
	more := 1.01
	if meets {
		more = 0.99
	}
	r := &dmReport{Machine: "A & B", Processors: 2}
	for _, device := range []string{"of 5ms a request", "in memory"} {
		x := reloadRow{Device: device, Outstanding: 32, Reloads: 100, Pause: times{4e6, 5e6, 1234e6}, Slowest: times{0.0021e6, 5e6, 5.1e6}}
		x.OfAllowed.Median, x.OfAllowed.Worst = 0.25, more
		r.Reloads = append(r.Reloads, x)
	}
	for _, n := range []int{1, 32} {
		r.Evictions = append(r.Evictions, evictionRow{Keys: 1000, Engines: 32, Holders: n, Evictions: 50, times: times{more * 1e6, more * 1e6, 123e6}})
	}
	for _, what := range []string{hitSlot, hitLayer} {
		for _, c := range []hitRow{{what, 1, 1, 1, 40 * more}, {what, 2, 2, 2, 60}, {what, 2, 2, 1, 60 + 2*17*more}, {what, 2, 1, 1, 4000}} {
			r.Hits = append(r.Hits, c)
		}
	}
	r.Shared = []sharedRow{{What: hitSlot, Cores: 2, Write: 17}, {What: hitLayer, Cores: 2, Write: 17}}
	r.countShared()
	r.judge()
	return r
}

func TestBenchDMSaysWhichAimsAreMet(t *testing.T) {
	for _, meets := range []bool{true, false} {
		r := measuredDM(meets)
		if len(r.Aims) != 9 { // two devices; two cases by median and by 99 %; hit; lines of two
			t.Errorf("%d aims, want 8", len(r.Aims))
		}
		var b strings.Builder
		if err := r.table(&b); err != nil {
			t.Fatal(err)
		}
		for _, a := range r.Aims {
			if a.Met != meets {
				t.Errorf("%s (%s): %g, wanted %s: met %v", a.What, a.Case, a.Measured, a.Wanted, a.Met)
			}
			mark := map[bool]string{true: "\nmet     ", false: "\nmissed  "}[meets]
			if !strings.Contains(b.String(), mark+a.What) {
				t.Errorf("the table lacks %q:\n%s", mark+a.What, b.String())
			}
		}
	}
}

func TestBenchDMTableFits80Columns(t *testing.T) {
	var b strings.Builder
	if err := measuredDM(true).table(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{
		"\nof 5ms a request        100     4.00     1234    0.002     5.10     25%     99%\n",
		"\nin every engine            50     0.99     0.99      123\n",
		"\nget and put a keyslot one core                            39.6\n",
		"\nget and put a keyslot 2 cores, a key each                 93.7\n",
		"\nget and put a keyslot 2 cores, an engine each             60.0\n",
		"\nwhole engine layer    2 cores, one key                    4000\n",
		"\nget and put a keyslot 1.98 writes of 17.0 ns\n", "\nwhole engine layer    1.98 writes of 17.0 ns\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestBenchDMDoesNotJudgeWhatItCouldNotMeasure(t *testing.T) {
	r := measuredDM(true)
	r.Shared[0].Written, r.Shared[0].Write, r.Aims = nil, 2, nil
	r.countShared()
	r.judge()
	var b strings.Builder
	if err := r.table(&b); err != nil {
		t.Fatal(err)
	}
	if len(r.Aims) != 8 || r.Shared[0].Written != nil || !strings.Contains(b.String(), "\nget and put a keyslot the cores did not run at once: not known\n") {
		t.Errorf("%d aims, want 8:\n%s", len(r.Aims), b.String())
	}
}

func TestTimesTellWhat99Of100KeptBelow(t *testing.T) {
	var v []float64
	for i := range 1000 {
		v = append(v, float64((i*7)%1000))
	}
	if have, want := timesOf(v), (times{499.5, 989, 999}); have != want {
		t.Errorf("%+v, want %+v", have, want)
	}
	if have, want := timesOf([]float64{3}), (times{3, 3, 3}); have != want {
		t.Errorf("%+v, want %+v", have, want)
	}
	if have := timesOf(nil); have != (times{}) {
		t.Errorf("of nothing: %+v", have)
	}
}

// On a clock that stands still while anything runs, the pause is what the device
// makes it: the rest of the time of the requests in flight, so that the rig adds
// nothing of its own to what it measures.
func TestBenchDMMeasuresThePauseOfAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := newReloadRig(t.Context(), slowLeaf)
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for lane := range outstanding {
			wg.Go(func() {
				time.Sleep(time.Duration(lane) * 100 * time.Microsecond) // 3.1 ms from the first to the last
				if err := g.work(t.Context(), uint16(lane), stop); err != nil {
					t.Error(err)
				}
			})
		}
		// The last request of a round of 5 ms began after 3.1 ms.
		for i, c := range []struct{ after, pause time.Duration }{
			{10*time.Millisecond + 3150*time.Microsecond, 4950 * time.Microsecond},
			{10*time.Millisecond + 50*time.Microsecond, 4950 * time.Microsecond}, // all began together when the reload had ended
			{14 * time.Millisecond, time.Millisecond},
		} {
			time.Sleep(c.after)
			pause, slowest, err := g.one(t.Context(), (i+1)%2)
			if err != nil || slowest != float64(slowLeaf) {
				t.Errorf("reload %d: slowest in flight %v, want %v; %v", i, time.Duration(slowest), slowLeaf, err)
			}
			if have := time.Duration(pause); have != c.pause {
				t.Errorf("reload %d: a pause of %v, want %v", i, have, c.pause)
			}
		}
		close(stop)
		wg.Wait()
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestBenchDMEvictsFromAsManyEnginesAsItSays(t *testing.T) {
	r := &dmReport{}
	for i, everywhere := range []bool{false, true} {
		if err := r.evict(t.Context(), everywhere, time.Nanosecond); err != nil {
			t.Fatal(err)
		}
		x, want := r.Evictions[i], map[bool]int{true: 32, false: 1}[everywhere]
		if x.Holders != want || x.Engines != 32 || x.Keys != 1000 || x.Evictions < 8 || x.Median <= 0 || x.Worst < x.Median {
			t.Errorf("%+v, want %d engines", x, want)
		}
	}
}

func TestBenchDMHitsAreOfOneCoreAndOfAll(t *testing.T) {
	r := &dmReport{}
	if err := r.hits(t.Context(), 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	cores := runtime.GOMAXPROCS(0)
	want := fmt.Sprint([]string{hitSlot, hitLayer})
	if cores > 1 {
		want = fmt.Sprint([]string{hitSlot, hitLayer, hitSlot, hitLayer, hitSlot, hitLayer, hitSlot, hitLayer})
	}
	var have []string
	for _, x := range r.Hits {
		have = append(have, x.What)
	}
	if fmt.Sprint(have) != want || len(r.Shared) != 2*min(cores-1, 1) {
		t.Errorf("%v, want %v; shared lines: %v on %d cores", have, want, r.Shared, cores)
	}
	if b, err := json.Marshal(r); err != nil || !strings.Contains(string(b), `"ns_per_request"`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestBenchDMEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := runDM(ctx, time.Hour); err == nil {
		t.Error("no error")
	}
}
