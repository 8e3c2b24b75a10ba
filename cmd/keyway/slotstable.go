package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"keyway/internal/plural"
	"keyway/internal/slotstudy"
)

// usualSlots are the rows that are shown when nobody asked for others.
var usualSlots = []int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}

// table prints the report for people; with all, every row.
func (r *slotsReport) table(to io.Writer, all bool) error {
	b := bufio.NewWriter(to)
	fmt.Fprintf(b, "%s with %s of %s in %v; requests of at most %s at once on one engine\n",
		count(r.Requests, "request"), count(r.Keys, "key"), count(r.Engines, "engine"), shortTime(r.span), count(r.Peak, "key"))
	fmt.Fprintf(b, "%s\n", r.assumed())
	if r.Evictions > 0 || r.Plain > 0 {
		fmt.Fprintf(b, "%s of keys; %s without a key\n", count(r.Evictions, "eviction"), count(r.Plain, "request"))
	}
	fmt.Fprintln(b)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "slots\thits\tprograms\twaits\tfor a slot\twaited\tp50\tp99\tlongest\tprogramming\tadded\t")
	var shown slotstudy.Row
	for i, row := range r.rows {
		same := row
		same.Slots = shown.Slots
		// More slots than enough change nothing: the last row tells that.
		usual := slices.Contains(usualSlots, row.Slots) && same != shown || i == r.best || i == len(r.rows)-1
		if !all && !usual {
			continue
		}
		shown = row
		mark := ""
		if i == r.best {
			mark = "* "
		}
		fmt.Fprintf(w, "%s%d\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t\n", mark, row.Slots, percent(row), row.Programs, row.Waits, row.Blocked,
			shortTime(row.Waited), shortTime(row.P50), shortTime(row.P99), shortTime(row.MaxWait), shortTime(row.Programming), shortTime(row.Added))
	}
	w.Flush()
	fmt.Fprintf(b, "\n%s\n", r.verdict())
	return b.Flush()
}

// assumed says what the replay takes for granted.
func (r *slotsReport) assumed() string {
	return fmt.Sprintf("a request holds a slot from start to end; programming one takes %s, evicting %s (engine %s)",
		shortTime(time.Duration(r.Program)), shortTime(time.Duration(r.Evict)), r.Engine)
}

// verdict answers the question.
func (r *slotsReport) verdict() string {
	rule := fmt.Sprintf("at least %g %% of the hits that any number would give, and no request waits because all slots are in use", r.HitRate)
	if r.best >= 0 {
		return fmt.Sprintf("%s enough: %s", slotsAre(r.rows[r.best].Slots), rule)
	}
	last := r.rows[len(r.rows)-1]
	return fmt.Sprintf("%s not enough: %d of %d possible hits, and %d waited for a slot (enough is %s)",
		slotsAre(last.Slots), last.Hits, r.Possible, last.Blocked, rule)
}

func slotsAre(n int) string {
	if n == 1 {
		return "1 slot is"
	}
	return plural.Of(n, "slot") + " are"
}

// percent is the hit rate; 100 % only if it is.
func percent(r slotstudy.Row) string {
	p := fmt.Sprintf("%.2f%%", 100*r.HitRate())
	if p == "100.00%" && r.Programs > 0 {
		return ">99.99%"
	}
	return p
}

// count is plural.Of with the thousands apart.
func count(n int, one string) string {
	text := plural.Of(n, one)
	digits := strconv.Itoa(n)
	return thousands(digits) + text[len(digits):]
}

func thousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// shortTime has three figures, which is what a column has room for.
func shortTime(d time.Duration) string {
	switch a := max(d, -d); {
	case a == 0:
		return "0"
	case a < time.Microsecond:
		return d.String()
	case a < time.Millisecond:
		return figures(float64(d)/1e3) + "µs"
	case a < time.Second:
		return figures(float64(d)/1e6) + "ms"
	default:
		return figures(float64(d)/1e9) + "s"
	}
}

func figures(v float64) string {
	switch a := max(v, -v); {
	case a < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}
