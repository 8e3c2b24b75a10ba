package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"keyway/internal/measure"
)

type report struct {
	Machine    string        `json:"machine"`
	Started    time.Time     `json:"started"`
	Rounds     int           `json:"rounds"`
	Seconds    float64       `json:"seconds_of_a_run"`
	Noise      float64       `json:"processors_used_by_others"`
	Peers      []string      `json:"peers"`
	Contenders []entry       `json:"contenders"`
	Samples    []sample      `json:"samples"`
	Setups     []setup       `json:"keys"`
	Aims       []measure.Aim `json:"aims"`
}

type entry struct {
	Mode string `json:"mode"`
	Name string `json:"name"`
	Kind string `json:"kind"` // ours, peer or bound
	Used bool   `json:"used_by_the_product"`
}

// A sample is one run.
type sample struct {
	Mode      string  `json:"mode"`
	Contender string  `json:"contender"`
	Operation string  `json:"operation"`
	Unit      int     `json:"data_unit"`
	Units     int     `json:"units"`
	Round     int     `json:"round"`
	BytesPS   float64 `json:"bytes_per_second"`
}

// goVersions are the Go peers that are linked.
func goVersions() (all []string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, d := range info.Deps {
		if slices.Contains([]string{"golang.org/x/crypto", "lukechampine.com/adiantum", "github.com/emmansun/gmsm"}, d.Path) {
			all = append(all, d.Path+" "+d.Version)
		}
	}
	return all
}

// rounds are the figures of a contender, in order; nil when it was not measured.
func (r *report) rounds(mode, contender, op string, unit, units int) (v []float64) {
	for _, s := range r.Samples {
		if s.Mode == mode && s.Contender == contender && s.Operation == op && s.Unit == unit && s.Units == units {
			v = append(v, s.BytesPS)
		}
	}
	return v
}

// median is of all rounds; 0 when nothing was measured.
func (r *report) median(mode, contender, op string, unit, units int) float64 {
	return measure.Median(r.rounds(mode, contender, op, unit, units))
}

// ratio is the median of the ratios of the rounds: what slows the machine down for
// a while slows both. 0 when one of them was not measured.
func (r *report) ratio(mode, ours, theirs, op string, unit, units int) float64 {
	a, b := r.rounds(mode, ours, op, unit, units), r.rounds(mode, theirs, op, unit, units)
	if len(a) != len(b) {
		return 0
	}
	for i := range a {
		a[i] /= b[i]
	}
	return measure.Median(a)
}

// bestPeer is the fastest of the peers, builds without their assembly aside.
func (r *report) bestPeer(mode, op string, unit, units int) (name string) {
	most := 0.0
	for _, e := range r.Contenders {
		if e.Mode != mode || e.Kind != peer || strings.HasSuffix(e.Name, portable) {
			continue
		}
		if v := r.median(mode, e.Name, op, unit, units); v > most {
			name, most = e.Name, v
		}
	}
	return name
}

// used is the implementation that the product uses.
func (r *report) used(mode string) string {
	for _, e := range r.Contenders {
		if e.Mode == mode && e.Used {
			return e.Name
		}
	}
	return ""
}

func (r *report) modes() (all []string) {
	for _, e := range r.Contenders {
		if !slices.Contains(all, e.Mode) {
			all = append(all, e.Mode)
		}
	}
	return all
}

func (r *report) markdown(w io.Writer) error {
	p := func(format string, a ...any) { fmt.Fprintf(w, format, a...) }
	p("# Data-unit ciphers on one core\n\n%s.\nPeers: %s. isa-l_crypto and the kernel's ciphers are not measured: Debian has no package of the first, and no process can call the others.\n",
		r.Machine, strings.Join(r.Peers, ", "))
	p("%d rounds of %.3g ms by turns, in bytes for a second of processor time, medians; ratios are medians of the rounds' ratios. Other processes kept %.2f processors busy on average.", r.Rounds, r.Seconds*1e3, r.Noise)
	if r.Noise > 0.25 {
		p(" **The machine was busy: trust nothing here; measure again when it is quiet.**")
	}
	p(" Ratios travel, absolute figures do not.\n")
	r.summary(p)
	for _, m := range r.modes() {
		r.modeTable(p, m)
	}
	p("\n## Keys\n\n| mode | implementation | set-up, µs | wipe, µs | allocations a call |\n|---|---|---|---|---|\n")
	for _, s := range r.Setups {
		p("| %s | %s | %.2f | %.2f | %g |\n", s.Mode, s.Impl, s.New/1e3, s.Wipe/1e3, s.Allocs)
	}
	measure.WriteAims(w, r.Aims)
	return nil
}

// summary is what the product uses in each mode, in a line.
func (r *report) summary(p func(string, ...any)) {
	const run = 8
	p("\n## What Keyway uses\n\nRuns of %d data units: GB/s, times the best peer, and the part of the AES rounds that the core does.\n\n| mode | |", run)
	for _, unit := range []int{512, 4096} {
		for _, op := range []string{"encrypt", "decrypt"} {
			p(" %s, %d |", op, unit)
		}
	}
	p("\n|---|---|---|---|---|---|\n")
	for _, m := range r.modes() {
		us := r.used(m)
		p("| %s | %s |", m, us)
		for _, unit := range []int{512, 4096} {
			for _, op := range []string{"encrypt", "decrypt"} {
				p(" %s", measure.Figure(r.median(m, us, op, unit, run)/1e9))
				if best := r.bestPeer(m, op, unit, run); best != "" {
					p(", %s× %s", measure.Figure(r.ratio(m, us, best, op, unit, run)), best)
				}
				if x := r.ratio(m, us, aesRounds, op, unit, run); x > 0 {
					p(", %.0f %%", 100*x)
				}
				p(" |")
			}
		}
		p("\n")
	}
}

// modeTable has ours, the peers and the bounds in rows.
func (r *report) modeTable(p func(string, ...any), m string) {
	p("\n## %s\n\nGB/s; in brackets ours times the best peer. `*` is what Keyway uses.", m)
	if m == "AES-128-CBC-ESSIV" {
		p(" OpenSSL and libgcrypt do plain CBC with given vectors.")
	}
	p("\n\n| | |")
	for _, unit := range []int{512, 4096} {
		for _, n := range runs {
			p(" %d×%d |", n, unit)
		}
	}
	p("\n|---|---|%s\n", strings.Repeat("---:|", 2*len(runs)))
	for _, op := range []string{"encrypt", "decrypt"} {
		for _, e := range r.Contenders {
			if e.Mode != m {
				continue
			}
			name := e.Name
			if e.Used {
				name = "`*` **" + name + "**"
			}
			p("| %s | %s |", name, op)
			for _, unit := range []int{512, 4096} {
				for _, n := range runs {
					v := r.median(m, e.Name, op, unit, n)
					p(" %s", measure.Figure(v/1e9))
					if best := r.bestPeer(m, op, unit, n); e.Kind == ours && best != "" {
						p(" (%s)", measure.Figure(r.ratio(m, e.Name, best, op, unit, n)))
					}
					p(" |")
				}
			}
			p("\n")
		}
	}
}
