package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"keyway/internal/measure"
)

// chartData is what both charts show: one core, runs of 8 data units (or of
// --size), a panel for each data unit size, the same scale everywhere.
type chartData struct {
	panels []benchCell
	max    float64 // bytes a second
	groups []chartGroup
}

type chartGroup struct {
	mode  string
	limit float64 // bytes a second; 0: none
	bars  []chartBar
}

type chartBar struct {
	impl, op string
	used     bool      // by default
	v        []float64 // bytes a second, for each panel
}

func (r *benchReport) chartData() chartData {
	d := chartData{panels: r.plan.cells}
	if len(d.panels) > 2 {
		d.panels = nil
		for _, c := range r.plan.cells {
			if c.units == 8 {
				d.panels = append(d.panels, c)
			}
		}
	}
	for _, mode := range r.plan.modes() {
		g := chartGroup{mode: measure.Name(mode[0].Mode), limit: r.limit(mode[0].Mode, 1)}
		d.max = max(d.max, g.limit)
		for _, s := range mode {
			for _, op := range []string{"encrypt", "decrypt"} {
				b := chartBar{impl: s.Impl, op: op, used: s.Default}
				for _, c := range d.panels {
					v := r.figure(s, op, c, 1).BytesPS
					b.v = append(b.v, v)
					d.max = max(d.max, v)
				}
				g.bars = append(g.bars, b)
			}
		}
		d.groups = append(d.groups, g)
	}
	return d
}

func (c benchCell) title() string {
	if c.units == 1 {
		return fmt.Sprintf("one unit of %d bytes", c.unit)
	}
	return fmt.Sprintf("%d units of %d bytes", c.units, c.unit)
}

// chart draws the report for a terminal.
func (r *benchReport) chart(f *os.File) error {
	width, colour := 80, false
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil {
		width = n
	}
	if measure.Terminal(f) {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
			width = int(ws.Col)
		}
		colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "%s\n", r.Machine)
	r.chartData().text(w, width, colour)
	return w.Flush()
}

const (
	barLabel  = 18 // "* aesni256 encrypt"
	barFigure = 6  // "  12.3"
)

// text draws bars in eighths of a column.
func (d chartData) text(w io.Writer, width int, colour bool) {
	width = min(max(width, 60), 160)
	room := (width-barLabel)/len(d.panels) - barFigure - 1
	paint := func(code, text string) string {
		if !colour || text == "" {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	fmt.Fprintf(w, "GB/s on one core; %s what Keyway uses here; %s what the AES rounds of the core allow\n", paint("1", "*"), paint("33", "│"))
	for _, g := range d.groups {
		head := ""
		for _, c := range d.panels {
			head += fmt.Sprintf(" %-*s", room+barFigure, c.title())
		}
		fmt.Fprintf(w, "\n%s%s\n", paint("1", fmt.Sprintf("%-*s", barLabel, g.mode)), strings.TrimRight(head, " "))
		for _, b := range g.bars {
			name, hue := "  "+b.impl, "36"
			if b.used {
				name = "* " + b.impl
			}
			if b.op == "decrypt" {
				name, hue = "", "34"
			}
			label := fmt.Sprintf("%-11s%-7s", name, b.op)
			if b.used {
				label = paint("1", label)
			}
			line := label
			for _, v := range b.v {
				line += " " + bar(v/d.max, g.limit/d.max, room, func(s string) string { return paint(hue, s) }, func(s string) string { return paint("33", s) }) +
					fmt.Sprintf("%*s", barFigure, gb(v))
			}
			fmt.Fprintln(w, line)
		}
	}
}

// bar is room columns wide: part of it is filled, a mark stands at limit if that
// is not 0.
func bar(part, limit float64, room int, fill, mark func(string) string) string {
	eighths := int(part*float64(room)*8 + 0.5)
	if eighths == 0 && part > 0 {
		eighths = 1 // something is more than nothing
	}
	eighths = min(eighths, 8*room)
	full := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		full += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	used := (eighths + 7) / 8
	out := fill(full)
	at := min(int(limit*float64(room)), room-1)
	if limit == 0 || at < used {
		return out + strings.Repeat(" ", room-used)
	}
	return out + strings.Repeat(" ", at-used) + mark("│") + strings.Repeat(" ", room-at-1)
}
