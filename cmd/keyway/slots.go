package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyway/internal/slotstudy"
	"keyway/internal/trace"
	"keyway/keyslot/emul"
)

type slotsFlags struct {
	trace, slots, engine, only, svg string
	hitRate                         float64
}

// maxSlots is how many keyslots a study goes up to; engines have 32 or fewer.
const maxSlots = 4096

func (c *cli) slots() *cobra.Command {
	var f slotsFlags
	cmd := &cobra.Command{
		Use:   "slots --trace FILE",
		Short: "Tell how many keyslots a workload needs",
		Long: `Replay a trace of requests against engines with 1 to 64 keyslots, and report for each
number how many requests find their key in a slot, how many wait and for how long, and
what programming costs. The last line names the smallest number that is enough: that
gives 99 % of the hits that any number of slots would give, and with which no request
waits because all slots are in use.

"keyway serve --trace FILE" writes a trace; doc/slots.md has its format, and how the
replay works: slots are held from the start of a request to its end, as hardware does
it, and chosen and waited for as the daemon's engines do.`,
		Example: `  keyway slots --trace day.trace
  keyway slots --trace day.trace --svg day.svg
  keyway slots --trace day.trace --engine "ufs?program-delay=50us&evict-delay=20us"
  keyway slots --trace day.trace --slots 8,16,32 --json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, spec, err := f.options()
			if err != nil {
				return err
			}
			if f.trace == "" {
				return misusef("slots: --trace is missing")
			}
			svg, err := newWholeFile(f.svg)
			if err != nil {
				return fmt.Errorf("slots: --svg: %w", err)
			}
			defer svg.discard()
			l, info, err := f.read()
			if err != nil {
				return err
			}
			if info.Truncated {
				warn("trace %s was cut off: its last line is missing, and requests may be; what is there was replayed", f.trace)
			}
			st, err := slotstudy.Run(cmd.Context(), l, o)
			if err != nil {
				return err
			}
			r := newSlotsReport(f, spec, o, info, st)
			if err := svg.write(r.svg()); err != nil {
				return fmt.Errorf("slots: --svg: %w", err)
			}
			if c.json {
				return printJSON(r)
			}
			return r.table(os.Stdout, cmd.Flags().Changed("slots"))
		},
	}
	cmd.Flags().StringVar(&f.trace, "trace", "", "`file` that \"keyway serve --trace\" wrote; - is standard input")
	cmd.Flags().StringVar(&f.slots, "slots", "1-64", "`numbers` of keyslots: 8,16,32 or 1-64")
	cmd.Flags().StringVar(&f.engine, "engine", "ufs", "`engine` whose delays programming and evicting have, as in \"keyway create\"")
	cmd.Flags().StringVar(&f.only, "only", "", "only engines whose name contains this `text`")
	cmd.Flags().Float64Var(&f.hitRate, "hit-rate", 99, "`percent` of the hits that any number of slots would give, which are enough")
	cmd.Flags().StringVar(&f.svg, "svg", "", "write a chart to this `file` as well")
	return c.withJSON(cmd)
}

// options checks the flags.
func (f *slotsFlags) options() (o slotstudy.Options, spec emul.Spec, err error) {
	if spec, err = emul.ParseSpec(f.engine); err != nil {
		return o, spec, misusef("slots: --engine: %w", err)
	}
	if spec.Options.Slots == 0 {
		return o, spec, misuse{
			error: fmt.Errorf("slots: --engine: %s has no keyslots: each request brings its key", spec.Kind),
			way:   "name an engine with keyslots, such as ufs",
		}
	}
	if f.hitRate < 0 || f.hitRate > 100 || f.hitRate != f.hitRate {
		return o, spec, misusef("slots: --hit-rate %g is not a percentage from 0 to 100", f.hitRate)
	}
	o = slotstudy.Options{Program: spec.Options.ProgramDelay, Evict: spec.Options.EvictDelay, HitRate: f.hitRate / 100}
	if o.Slots, err = parseSlots(f.slots); err != nil {
		return o, spec, misusef("slots: --slots: %w", err)
	}
	return o, spec, nil
}

// parseSlots reads numbers and ranges, in any order, and returns them in theirs.
func parseSlots(text string) (all []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || from < 1 || to < from || to > maxSlots {
			return nil, fmt.Errorf("%q is neither a number from 1 to %d nor a range of them (8,16,32 or 1-64)", part, maxSlots)
		}
		for n := from; n <= to; n++ {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (f *slotsFlags) read() (*slotstudy.Load, *trace.Info, error) {
	var in io.Reader = os.Stdin
	if f.trace != "-" {
		file, err := os.Open(f.trace)
		if err != nil {
			return nil, nil, err
		}
		defer file.Close()
		in = file
	}
	var keep func(string) bool
	if f.only != "" {
		keep = func(name string) bool { return strings.Contains(name, f.only) }
	}
	l, info, err := slotstudy.Read(in, keep)
	if err == nil {
		return l, info, nil
	}
	if errors.Is(err, slotstudy.ErrNothing) && f.only != "" {
		var names []string
		for _, e := range info.Engines[:min(len(info.Engines), 20)] {
			names = append(names, strconv.Quote(e.Name))
		}
		return nil, nil, fmt.Errorf("trace %s: %w on an engine whose name contains %q: there are %s", f.trace, err, f.only, strings.Join(names, ", "))
	}
	return nil, nil, fmt.Errorf("trace %s: %w", f.trace, err)
}

// slotsReport is what the command prints. Times in JSON are nanoseconds.
type slotsReport struct {
	Trace     string     `json:"trace"`
	Began     string     `json:"began,omitempty"`
	Truncated bool       `json:"truncated"`
	Engine    string     `json:"engine"`
	Has       int        `json:"engine_slots"` // keyslots of that engine
	Program   int64      `json:"program_ns"`
	Evict     int64      `json:"evict_ns"`
	Requests  int        `json:"requests"`
	Plain     int        `json:"requests_without_key"`
	Evictions int        `json:"evictions"`
	Keys      int        `json:"keys"`
	Engines   int        `json:"engines"`
	Peak      int        `json:"keys_at_once"`
	Possible  int        `json:"possible_hits"`
	Span      int64      `json:"span_ns"`
	HitRate   float64    `json:"enough_percent_of_hits"`
	Rows      []slotsRow `json:"rows"`
	Enough    *int       `json:"enough"` // slots; nil: none of them
	rows      []slotstudy.Row
	best      int // index of Enough; -1
	span      time.Duration
}

type slotsRow struct {
	Slots       int     `json:"slots"`
	Hits        int     `json:"hits"`
	HitRate     float64 `json:"hit_rate"`
	Programs    int     `json:"programs"`
	Evicted     int     `json:"evicted"`
	Waits       int     `json:"waits"`
	Blocked     int     `json:"waits_for_a_slot"`
	Waited      int64   `json:"waited_ns"`
	P50         int64   `json:"wait_p50_ns"`
	P99         int64   `json:"wait_p99_ns"`
	MaxWait     int64   `json:"wait_max_ns"`
	Programming int64   `json:"programming_ns"`
	Added       int64   `json:"added_ns"`
}

func newSlotsReport(f slotsFlags, spec emul.Spec, o slotstudy.Options, info *trace.Info, st *slotstudy.Study) *slotsReport {
	r := &slotsReport{
		Trace: f.trace, Truncated: info.Truncated, Engine: spec.Kind, Has: spec.Options.Slots,
		Program: int64(o.Program), Evict: int64(o.Evict),
		Requests: st.Requests, Plain: st.Plain, Evictions: st.Evictions, Keys: st.Keys, Engines: st.Engines,
		Peak: st.Peak, Possible: st.Possible, Span: st.Span, HitRate: f.hitRate,
		rows: st.Rows, best: st.Enough, span: time.Duration(st.Span),
	}
	if !info.Began.IsZero() {
		r.Began = info.Began.Format(time.RFC3339Nano)
	}
	for _, w := range st.Rows {
		r.Rows = append(r.Rows, slotsRow{
			w.Slots, w.Hits, w.HitRate(), w.Programs, w.Evicted, w.Waits, w.Blocked,
			int64(w.Waited), int64(w.P50), int64(w.P99), int64(w.MaxWait), int64(w.Programming), int64(w.Added),
		})
	}
	if st.Enough >= 0 {
		r.Enough = &st.Rows[st.Enough].Slots
	}
	return r
}
