package main

import (
	"bufio"
	"fmt"
	"io"

	"keyway/internal/measure"
)

// table prints the report for people: 80 columns.
func (r *dmReport) table(to io.Writer) error {
	w := bufio.NewWriter(to)
	p := func(format string, a ...any) { fmt.Fprintf(w, format, a...) }
	p("%s\n", r.Machine)

	p("\nReload under %d outstanding requests, from a leaf with an engine to one without\n", outstanding)
	p("and back, in ms. The pause lasts from the call to the first request through the\n")
	p("new table; it may last for twice the slowest request in flight and 1 ms.\n\n")
	p("%-19s%8s%18s%18s%16s\n", "", "", "pause", "slowest", "of allowed")
	p("%-19s%8s%9s%9s%9s%9s%8s%8s\n", "device", "reloads", "median", "worst", "median", "worst", "median", "worst")
	for _, x := range r.Reloads {
		p("%-19s%8d%9s%9s%9s%9s%7.0f%%%7.0f%%\n", x.Device, x.Reloads, ms(x.Pause.Median), ms(x.Pause.Worst), ms(x.Slowest.Median), ms(x.Slowest.Worst),
			100*x.OfAllowed.Median, 100*x.OfAllowed.Worst)
	}

	p("\nEviction of an idle key, one of %d, with %d engines, in ms.\n\n", dmKeys, dmEngines)
	p("%-19s%10s%9s%9s%9s\n", "the key was", "evictions", "median", "99 %", "worst")
	for _, x := range r.Evictions {
		where := "in one engine"
		if x.Holders > 1 {
			where = "in every engine"
		}
		p("%-19s%10d%9s%9s%9s\n", where, x.Evictions, ms(x.Median), ms(x.Most), ms(x.Worst))
	}

	p("\nA request whose key is in a keyslot, in ns of processor time. The whole layer is\n")
	p("what a read with a key costs more than one without, but for the cipher.\n\n")
	for _, x := range r.Hits {
		by := "one core"
		switch {
		case x.Cores > 1 && x.Engines > 1:
			by = fmt.Sprintf("%d cores, an engine each", x.Cores)
		case x.Cores > 1 && x.Keys > 1:
			by = fmt.Sprintf("%d cores, a key each", x.Cores)
		case x.Cores > 1:
			by = fmt.Sprintf("%d cores, one key", x.Cores)
		}
		p("%-22s%-32s%8s\n", x.What, by, measure.Figure(max(x.NsPerReq, 0)))
	}
	if len(r.Shared) > 0 {
		p("\nWhat it costs that requests of different keys share an engine, in writes to a\n")
		p("cache line that all write: so many are in each request. The slot of one key that\n")
		p("all use is written twice more, by its count of requests.\n\n")
	}
	for _, x := range r.Shared {
		if x.Written == nil {
			p("%-22sthe cores did not run at once: not known\n", x.What)
			continue
		}
		p("%-22s%s writes of %s ns\n", x.What, measure.Figure(*x.Written), measure.Figure(x.Write))
	}

	p("\n")
	for _, a := range r.Aims {
		mark := "missed"
		if a.Met {
			mark = "met"
		}
		p("%-6s  %s: %s, wanted %s\n        (%s)\n", mark, a.What, measure.Figure(a.Measured), a.Wanted, a.Case)
	}
	return w.Flush()
}

// ms prints nanoseconds as milliseconds.
func ms(ns float64) string { return measure.Figure(ns / 1e6) }
