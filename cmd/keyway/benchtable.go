package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"keyway/blkcrypto"
	"keyway/internal/measure"
	"keyway/internal/roofline"
	"keyway/internal/size"
)

// table prints the report for people: 80 columns, a block for each mode.
func (r *benchReport) table(to io.Writer) error {
	w := bufio.NewWriter(to)
	p := func(format string, a ...any) { fmt.Fprintf(w, format, a...) }
	p("%s\n", r.Machine)
	p("10^9 AES rounds/s on one core: %s.\n", r.roundsText())
	p("\nGB/s (10^9 bytes) of runs of data units. %% is the part of what the AES rounds of\n")
	p("so many cores allow; of memcpy, in modes that AES rounds do not bound.\n")
	p("* marks what Keyway uses here.\n")
	for _, mode := range r.plan.modes() {
		r.modeTable(p, mode)
	}
	if len(r.Path) > 0 {
		r.pathTable(p)
	}
	return w.Flush()
}

// roundsText says what the core does, by the width of its vectors.
func (r *benchReport) roundsText() string {
	var parts []string
	best := 0.0
	for _, x := range r.Rounds {
		if x.Cores == 1 {
			parts = append(parts, fmt.Sprintf("%d-bit %s", x.Bits, measure.Figure(x.RoundsPS/1e9)))
			best = max(best, x.RoundsPS)
		}
	}
	if best == 0 {
		return "none, no AES instructions in this build or CPU"
	}
	return strings.Join(parts, ", ") + ":\nAES-256 at most " + gb(roofline.BytesPerSecond(best, 14)) + " GB/s, AES-128 " + gb(roofline.BytesPerSecond(best, 10))
}

func gb(v float64) string { return measure.Figure(v / 1e9) }

type printer func(format string, a ...any)

func (r *benchReport) modeTable(p printer, mode []measure.Subject) {
	m := mode[0].Mode
	units, runs, last := measure.Name(m), "", 0
	for i, c := range r.plan.cells {
		at := r.plan.column(i)
		if c.unit != last {
			units = pad(units, at) + fmt.Sprintf("%d-byte units", c.unit)
		}
		runs = pad(runs, at) + fmt.Sprintf("%5s", fmt.Sprintf("×%d", c.units))
		last = c.unit
	}
	p("\n%s\n%s\n", units, runs)
	for _, cores := range r.plan.cores {
		if cores == 1 {
			p("one core")
		} else {
			p("%d cores", cores)
		}
		if v := r.limit(m, cores); v > 0 {
			p(": AES rounds allow %s", gb(v))
		}
		p("\n")
		for _, s := range mode {
			for _, op := range []string{"encrypt", "decrypt"} {
				mark, name := " ", s.Impl
				if s.Default {
					mark = "*"
				}
				if op == "decrypt" {
					mark, name = " ", ""
				}
				r.row(p, fmt.Sprintf("%s %-8s %s", mark, name, op), func(c benchCell) (float64, float64) {
					x := r.figure(s, op, c, cores)
					if x.LimitPS > 0 {
						return x.BytesPS, x.OfLimit
					}
					if measure.AESRounds(m) > 0 {
						return x.BytesPS, 0
					}
					return x.BytesPS, x.OfMemcpy
				})
			}
		}
		r.row(p, "  memcpy", func(c benchCell) (float64, float64) { return r.copied(c.size(), cores), 0 })
	}
}

func (r *benchReport) row(p printer, label string, f func(benchCell) (v, part float64)) {
	line := label
	for i, c := range r.plan.cells {
		v, part := f(c)
		line = pad(line, r.plan.column(i)) + fmt.Sprintf("%5s", gb(v))
		if part >= 0.015 { // less is nothing, and would touch the next figure
			line += fmt.Sprintf("%4.0f%%", 100*part)
		}
	}
	p("%s\n", line)
}

// column is where the figures of cell i begin.
func (p *benchPlan) column(i int) int {
	stride := 10
	if len(p.cells) == 2 {
		stride = 18 // a title each
	}
	at := 19 + stride*i
	if p.cells[i].unit != p.cells[0].unit {
		at++
	}
	return at
}

// pad makes s n columns wide at least.
func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s)))
}

func (r *benchReport) pathTable(p printer) {
	p("\nRequests to a device in memory, data units of 4096 bytes, one core: GB/s and\nmicroseconds for a request.\n\n")
	p("%-26s%22s%26s\n", "", "engine", "fallback")
	p("%-18s%6s%11s%13s%13s%13s\n", "", "", "write", "read", "write", "read")
	for _, m := range blkcrypto.Modes() {
		for i, n := range r.plan.requests {
			label, found := m.String(), false
			if i > 0 {
				label = ""
			}
			line := fmt.Sprintf("%-18s%6s", label, size.Format(int64(n)))
			for _, by := range []string{"engine", "fallback"} {
				for _, op := range []string{"write", "read"} {
					for _, x := range r.Path {
						if x.Mode == m.String() && x.Size == n && x.By == by && x.Operation == op {
							found = true
							line += fmt.Sprintf("%6s %6s", gb(x.BytesPS), measure.Figure(x.NsPerReq/1e3))
						}
					}
				}
			}
			if found {
				p("%s\n", line)
			}
		}
	}
}
