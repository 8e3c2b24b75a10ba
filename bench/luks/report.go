package main

import (
	"fmt"
	"io"
	"time"

	"keyway/internal/measure"
)

type report struct {
	Machine string        `json:"machine"`
	Started time.Time     `json:"started"`
	Rounds  int           `json:"rounds"`
	Peer    string        `json:"peer"`
	Noise   float64       `json:"processors_used_by_others"`
	Cases   []string      `json:"cases"`
	Samples []sample      `json:"samples"`
	Aims    []measure.Aim `json:"aims"`
}

// A sample is one run, from the start of its process to the end.
type sample struct {
	Case      string  `json:"case"`
	Contender string  `json:"contender"`
	Round     int     `json:"round"`
	Wall      float64 `json:"seconds"`
	CPU       float64 `json:"processor_seconds"`
}

func wall(s sample) float64 { return s.Wall }
func cpu(s sample) float64  { return s.CPU }

// rounds are the figures of a contender, in order.
func (r *report) rounds(name, contender string, of func(sample) float64) (v []float64) {
	for _, s := range r.Samples {
		if s.Case == name && s.Contender == contender {
			v = append(v, of(s))
		}
	}
	return v
}

// ratio is the median of the ratios of the rounds: what slows the machine down for
// a while slows both.
func (r *report) ratio(name, a, b string, of func(sample) float64) float64 {
	x, y := r.rounds(name, a, of), r.rounds(name, b, of)
	for i := range x {
		x[i] /= y[i]
	}
	return measure.Median(x)
}

// aims are that unlocking costs at most 5 % more than cryptsetup's, of the clock
// and of processors.
func (r *report) aims() (all []measure.Aim) {
	for _, name := range r.Cases {
		all = append(all, measure.Below("time to unlock, times cryptsetup's", name, r.ratio(name, ours, cryptsetup, wall), 1.05))
	}
	for _, name := range r.Cases {
		all = append(all, measure.Below("processor time to unlock, times cryptsetup's", name, r.ratio(name, ours, cryptsetup, cpu), 1.05))
	}
	return all
}

func (r *report) markdown(w io.Writer) {
	p := func(format string, a ...any) { fmt.Fprintf(w, format, a...) }
	p("# Unlocking LUKS2\n\n%s.\nPeer: %s.\n", r.Machine, r.Peer)
	p("%d rounds by turns, each from the start of a process to its end; medians, and medians of the rounds' ratios. Other processes kept %.2f processors busy on average.", r.Rounds, r.Noise)
	if r.Noise > 0.25 {
		p(" **The machine was busy: the clock tells little, processor time a bit more; measure again when it is quiet.**")
	}
	p("\n\n| case | | seconds | times cryptsetup | processor seconds | times cryptsetup |\n|---|---|---:|---:|---:|---:|\n")
	for _, name := range r.Cases {
		for _, c := range contenders {
			p("| %s | %s | %s | %.2f | %s | %.2f |\n", name, c,
				measure.Figure(measure.Median(r.rounds(name, c, wall))), r.ratio(name, c, cryptsetup, wall),
				measure.Figure(measure.Median(r.rounds(name, c, cpu))), r.ratio(name, c, cryptsetup, cpu))
		}
	}
	measure.WriteAims(w, r.Aims)
}
