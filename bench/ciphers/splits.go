package main

import (
	"fmt"
	"io"

	"keyway/internal/measure"
	"keyway/internal/size"
)

type splitReport struct {
	Machine string  `json:"machine"`
	Cores   int     `json:"cores"`
	Unit    int     `json:"data_unit"`
	Noise   float64 `json:"processors_used_by_others"`
	Splits  []split `json:"splits"`
}

// large is the request that stands for all in the summary.
const large = 256 << 10

// worth is how much shorter a request must be for a split to pay: less is not
// worth the processor time that it costs.
const worth = 0.8

func (r *splitReport) find(mode, impl, cond string, size int, way string, parts int) *split {
	for i := range r.Splits {
		s := &r.Splits[i]
		if s.Mode == mode && s.Impl == impl && s.Condition == cond && s.Size == size && s.Way == way && s.Parts == parts {
			return s
		}
	}
	return nil
}

// breakEven is the smallest size from which on a way takes at most worth of what
// one core takes; 0 if no size does.
func (r *splitReport) breakEven(mode, impl, cond, way string, parts int) (from int) {
	for _, n := range splitSizes {
		one, x := r.find(mode, impl, cond, n, "one", 1), r.find(mode, impl, cond, n, way, parts)
		if one == nil || x == nil {
			continue // takes too long to be measured
		}
		switch pays := x.P50 <= worth*one.P50; {
		case !pays:
			from = 0
		case from == 0:
			from = n
		}
	}
	return from
}

// variants are the ways that split, with their numbers of parts.
func (r *splitReport) variants() (all []split) {
	for _, w := range ways[1:] {
		all = append(all, split{Way: w.name, Parts: 2})
		if r.Cores > 2 {
			all = append(all, split{Way: w.name, Parts: r.Cores})
		}
	}
	return all
}

func (r *splitReport) subjects() (all []split) {
	for _, s := range r.Splits {
		if n := len(all); n == 0 || all[n-1].Mode != s.Mode || all[n-1].Impl != s.Impl {
			all = append(all, s)
		}
	}
	return all
}

func (r *splitReport) markdown(w io.Writer) error {
	p := func(format string, a ...any) { fmt.Fprintf(w, format, a...) }
	p("# One request on several cores\n\n%s. Encryption, data units of %d bytes. Other processes kept %.2f processors busy on average.", r.Machine, r.Unit, r.Noise)
	if r.Noise > 0.25 {
		p(" **The machine was busy: trust nothing here; measure again when it is quiet.**")
	}
	p(`

A request is transformed by one goroutine; by a new goroutine for each part; by a
standing worker for each part; or by all that come in time taking chunks of %s or
more: new goroutines (chunks) or standing ones (helper). Meanwhile the machine is idle
and requests follow each other; idle, and a pause of %v lets the other cores sleep
before each; or all cores are busy with requests of %s of the same kind.

## From what size on a request takes at most %.0f %% of its time on one core

The columns of a busy machine are for requests of %s: times the median on one core,
and times what all requests together get done.

| | | idle, one after the other | idle, after a pause | busy: median | busy: all |
|---|---|---|---|---|---|
`, size.Format(leastChunk), conditions[1].pause, size.Format(busyRequest), 100*worth, size.Format(large))
	for _, s := range r.subjects() {
		for _, v := range r.variants() {
			p("| %s %s | %s, %d |", s.Mode, s.Impl, v.Way, v.Parts)
			for _, c := range conditions {
				if c.busy {
					one, x := r.find(s.Mode, s.Impl, c.name, large, "one", 1), r.find(s.Mode, s.Impl, c.name, large, v.Way, v.Parts)
					if one != nil && x != nil {
						p(" %.2f | %.2f |", x.P50/one.P50, x.All/one.All)
					} else {
						p(" – | – |")
					}
				} else if n := r.breakEven(s.Mode, s.Impl, c.name, v.Way, v.Parts); n > 0 {
					p(" %s |", size.Format(int64(n)))
				} else {
					p(" never |")
				}
			}
			p("\n")
		}
	}
	for _, s := range r.subjects() {
		if s.Default || s.Impl == "generic" {
			r.details(p, s)
		}
	}
	return nil
}

// details prints what a subject costs by size.
func (r *splitReport) details(p func(string, ...any), s split) {
	for _, c := range conditions {
		p("\n## %s (%s), %s\n\nMicroseconds: median and 99th percentile; in brackets the median times one core, and ", s.Mode, s.Impl, c.name)
		if c.busy {
			p("what all requests together get done")
		} else {
			p("processor time")
		}
		p(" times one core")
		p(".\n\n| | one |")
		for _, v := range r.variants() {
			p(" %s, %d |", v.Way, v.Parts)
		}
		p("\n|---|---|")
		for range r.variants() {
			p("---|")
		}
		p("\n")
		for _, n := range splitSizes {
			one := r.find(s.Mode, s.Impl, c.name, n, "one", 1)
			if one == nil {
				continue
			}
			p("| %s | %s %s |", size.Format(int64(n)), measure.Figure(one.P50), measure.Figure(one.P99))
			for _, v := range r.variants() {
				x := r.find(s.Mode, s.Impl, c.name, n, v.Way, v.Parts)
				cost := x.CPU / one.CPU
				if c.busy {
					cost = x.All / one.All
				}
				p(" %s %s (%.2f, %.2f) |", measure.Figure(x.P50), measure.Figure(x.P99), x.P50/one.P50, cost)
			}
			p("\n")
		}
	}
}
