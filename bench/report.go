package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"keyway/internal/measure"
)

type report struct {
	Machine        string
	Started        time.Time
	Size           int64 // bytes of each disk
	Rounds         int
	Seconds        float64 // of one run
	Servers, Loads []string
	Samples        []sample
}

// median returns the median of f over the rounds; 0 when nothing was measured.
func (r *report) median(server, load string, f func(sample) float64) float64 {
	var v []float64
	for _, s := range r.Samples {
		if s.Server == server && s.Load == load {
			v = append(v, f(s))
		}
	}
	return measure.Median(v)
}

func gbps(s sample) float64   { return s.GBps }
func p99(s sample) float64    { return s.P99 }
func cpuGiB(s sample) float64 { return s.CPU }

// speed tells how a workload's throughput is shown.
func speed(load string) (f func(sample) float64, unit string) {
	if words := strings.Fields(load); slices.Contains(words, "4K") || slices.Contains(words, "16K") {
		return func(s sample) float64 { return s.KIOPS }, "k/s"
	}
	return gbps, "GB/s"
}

func (r *report) markdown(w io.Writer) error {
	p := func(format string, a ...any) { fmt.Fprintf(w, format, a...) }
	p("# NBD servers on one machine\n\n%s.\n", r.Machine)
	p("Unix socket, disks of %d MiB in memory, %d rounds of %.2g s by turns, medians. ", r.Size>>20, r.Rounds, r.Seconds)
	var noise []float64
	for _, s := range r.Samples {
		noise = append(noise, s.Foreign)
	}
	slices.Sort(noise)
	if len(noise) > 0 {
		p("Other processes used %.0f %% of a processor (median; worst run %.0f %%).", 100*noise[len(noise)/2], 100*noise[len(noise)-1])
	}
	if len(noise) > 0 && noise[len(noise)/2] > 0.25 {
		p(" **The machine was busy: trust nothing here; measure again when it is quiet.**")
	}
	p(" Ratios travel, absolute figures do not.\n\n## Throughput (in brackets: times %s)\n\n", nbdkitMemory)
	head := func() {
		p("| workload |")
		for _, s := range r.Servers {
			p(" %s |", s)
		}
		p("\n|---|%s\n", strings.Repeat("---|", len(r.Servers)))
	}
	head()
	for _, l := range r.Loads {
		f, unit := speed(l)
		base := r.median(nbdkitMemory, l, f)
		p("| %s, %s |", l, unit)
		for _, s := range r.Servers {
			p(" %s", measure.Figure(r.median(s, l, f)))
			if base > 0 && s != nbdkitMemory {
				p(" (%.2f)", r.median(s, l, f)/base)
			}
			p(" |")
		}
		p("\n")
	}
	for _, t := range []struct {
		title string
		f     func(sample) float64
	}{{"Latency: 99th percentile, µs", p99}, {"Server processor seconds for a GiB", cpuGiB}} {
		p("\n## %s\n\n", t.title)
		head()
		for _, l := range r.Loads {
			p("| %s |", l)
			for _, s := range r.Servers {
				if v := r.median(s, l, t.f); v > 0 {
					p(" %s |", measure.Figure(v))
				} else {
					p(" – |")
				}
			}
			p("\n")
		}
	}
	measure.WriteAims(w, r.aims())
	return nil
}
