package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"keyway/internal/slotstudy"
	"keyway/internal/svg"
)

// Sizes of the chart in its own units.
const (
	slotsLeft  = 64.0
	slotsWidth = 640.0
	slotsRight = 72.0
	slotsHead  = 88.0
	slotsPanel = 130.0 // height of a panel
	slotsGap   = 52.0  // beneath each, with its title above the next
	slotsFoot  = 62.0
)

const slotsRules = `  .panel { font-size: 13px; font-weight: 600; }
  .line { stroke: #0969da; stroke: var(--first); stroke-width: 2; fill: none; stroke-linejoin: round; }
  .other { stroke: #7fb2e5; stroke: var(--second); stroke-width: 2; fill: none; stroke-linejoin: round; }
  .dot { fill: #0969da; fill: var(--first); }
  .enough { stroke: #1f2328; stroke: var(--ink); stroke-width: 1.5; }
  .enoughText { font-weight: 600; }
`

// A slotsCurve is one of the curves over the number of slots.
type slotsCurve struct {
	title, name, other string
	of, and            func(slotstudy.Row) float64 // and may be nil
	most               float64                     // 0: what the rows have
	limit              float64                     // 0: none
	limitName          string
	format             func(float64) string
}

// svg draws the report as an image that stands on its own.
func (r *slotsReport) svg() string {
	curves := r.curves()
	height := slotsHead + float64(len(curves))*(slotsPanel+slotsGap) - slotsGap + slotsFoot
	m := svg.New(slotsLeft+slotsWidth+slotsRight, height, "How many keyslots a workload needs", r.verdict()+". "+r.spoken(), slotsRules)
	m.P(`<text class="title" x="16" y="28">Keyslots for %s with %s</text>`, svg.Escape(count(r.Requests, "request")), svg.Escape(count(r.Keys, "key")))
	m.P(`<text class="faint" x="16" y="46">%s</text>`, svg.Escape(r.assumed()))
	top := slotsHead
	for _, c := range curves {
		r.panel(m, c, top)
		top += slotsPanel + slotsGap
	}
	bottom := height - slotsFoot
	for _, n := range r.marks() {
		m.P(`<text class="faint" text-anchor="middle" x="%.1f" y="%g">%d</text>`, r.x(n), bottom+16, n)
	}
	m.P(`<text class="faint" x="%g" y="%g">keyslots</text>`, slotsLeft+slotsWidth+12, bottom+16)
	r.engines(m, bottom)
	return m.String()
}

func (r *slotsReport) curves() []slotsCurve {
	span := func(v float64) string { return round(shortTime(time.Duration(v))) }
	return []slotsCurve{
		{
			title: "requests that find their key in a slot", name: "hits", most: 100,
			of:    func(w slotstudy.Row) float64 { return 100 * w.HitRate() },
			limit: 100 * float64(r.Possible) / float64(r.Requests), limitName: "possible",
			format: func(v float64) string { return fmt.Sprintf("%.4g %%", v) },
		},
		{
			title: "requests that wait", name: "for a slot", other: "for any reason",
			of:     func(w slotstudy.Row) float64 { return float64(w.Blocked) },
			and:    func(w slotstudy.Row) float64 { return float64(w.Waits) },
			format: func(v float64) string { return thousands(strconv.Itoa(int(v))) },
		},
		{
			title: "time", name: "added", other: "programming",
			of:     func(w slotstudy.Row) float64 { return float64(max(w.Added, 0)) },
			and:    func(w slotstudy.Row) float64 { return float64(w.Programming) },
			format: span,
		},
	}
}

// round takes the zeros away that a figure on an axis does not need.
func round(text string) string {
	number := strings.TrimRight(text, "µnms")
	unit := text[len(number):]
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number + unit
}

// x is the place of so many slots. One has some room to its left.
func (r *slotsReport) x(n int) float64 {
	last := r.rows[len(r.rows)-1].Slots
	return slotsLeft + slotsWidth*(float64(n)-0.5)/float64(last)
}

// marks are the numbers on the axis.
func (r *slotsReport) marks() (all []int) {
	last := r.rows[len(r.rows)-1].Slots
	step, _ := svg.Ticks(float64(last))
	if last == 64 || last == 32 {
		step = 8 // what engines have
	}
	all = append(all, 1)
	for n := math.Max(step, 2); n <= float64(last); n += math.Max(step, 1) {
		all = append(all, int(n))
	}
	return all
}

// panel draws one curve.
func (r *slotsReport) panel(m *svg.Image, c slotsCurve, top float64) {
	most := c.most
	for _, w := range r.rows {
		if most = math.Max(most, c.of(w)); c.and != nil {
			most = math.Max(most, c.and(w))
		}
	}
	step, high := svg.Ticks(most)
	if c.most == 100 {
		step, high = 25, 100
	}
	if step < 1 { // there is no half of a request, nor of a nanosecond
		step, high = 1, math.Ceil(high)
	}
	bottom := top + slotsPanel
	y := func(v float64) float64 { return bottom - v/high*slotsPanel }
	m.P(`<text class="panel" x="%g" y="%g">%s</text>`, slotsLeft, top-12, svg.Escape(c.title))
	for v := 0.0; v <= high+step/2; v += step {
		m.P(`<path class="grid" d="M%g %.1fH%g"/>`, slotsLeft, y(v), slotsLeft+slotsWidth)
		m.P(`<text class="faint figure" text-anchor="end" x="%g" y="%.1f">%s</text>`, slotsLeft-6, y(v)+4, svg.Escape(c.format(v)))
	}
	for _, n := range r.marks() {
		m.P(`<path class="grid" d="M%.1f %gV%g"/>`, r.x(n), bottom, bottom+4)
	}
	if c.limit > 0 && c.limit < 99.5 {
		m.P(`<path class="limit" d="M%g %.1fH%g"/>`, slotsLeft, y(c.limit), slotsLeft+slotsWidth)
		m.P(`<text class="limitText" x="%g" y="%.1f">%s</text>`, slotsLeft+slotsWidth+6, y(c.limit)-6, svg.Escape(c.limitName))
	}
	r.uprights(m, top, bottom)
	if c.and != nil {
		r.line(m, "other", c.and, y)
	}
	r.line(m, "line", c.of, y)
	for _, w := range r.rows {
		m.P(`<circle class="dot" cx="%.1f" cy="%.1f" r="2.5"><title>%d: %s, %s</title></circle>`, r.x(w.Slots), y(c.of(w)), w.Slots, svg.Escape(c.name), svg.Escape(c.format(c.of(w))))
	}
	right := slotsLeft + slotsWidth
	if c.and != nil {
		m.P(`<path class="line" d="M%g %gH%g"/><text class="faint" x="%g" y="%g">%s</text>`, right-220, top-16, right-200, right-194, top-12, svg.Escape(c.name))
		m.P(`<path class="other" d="M%g %gH%g"/><text class="faint" x="%g" y="%g">%s</text>`, right-116, top-16, right-96, right-90, top-12, svg.Escape(c.other))
	}
}

func (r *slotsReport) line(m *svg.Image, class string, of func(slotstudy.Row) float64, y func(float64) float64) {
	var d strings.Builder
	for i, w := range r.rows {
		fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], r.x(w.Slots), y(of(w)))
	}
	m.P(`<path class="%s" d="%s"/>`, class, d.String())
}

// showsEngine reports whether the slots of the engine are marked.
func (r *slotsReport) showsEngine() bool {
	return r.Has <= r.rows[len(r.rows)-1].Slots && (r.best < 0 || r.rows[r.best].Slots != r.Has)
}

// uprights mark in a panel how many slots are enough, and how many the engine has.
func (r *slotsReport) uprights(m *svg.Image, top, bottom float64) {
	if r.showsEngine() {
		m.P(`<path class="limit" d="M%.1f %gV%g"/>`, r.x(r.Has), top, bottom)
	}
	if r.best >= 0 {
		m.P(`<path class="enough" d="M%.1f %gV%g"/>`, r.x(r.rows[r.best].Slots), top, bottom)
	}
}

// engines names the uprights, beneath the last panel.
func (r *slotsReport) engines(m *svg.Image, bottom float64) {
	text := func(class string, n int, y float64, text string) {
		anchor, x := "middle", r.x(n)
		if x < slotsLeft+50 {
			anchor, x = "start", x-4
		}
		m.P(`<text class="%s" text-anchor="%s" x="%.1f" y="%g">%s</text>`, class, anchor, x, y, svg.Escape(text))
	}
	if r.best >= 0 {
		n := r.rows[r.best].Slots
		verb := "are"
		if n == 1 {
			verb = "is"
		} else if n == r.Has {
			verb = fmt.Sprintf("(as %s has) are", r.Engine)
		}
		text("enoughText", n, bottom+34, fmt.Sprintf("%d %s enough", n, verb))
	}
	if r.showsEngine() {
		y := bottom + 34
		if r.best >= 0 && math.Abs(r.x(r.rows[r.best].Slots)-r.x(r.Has)) < 130 {
			y += 16
		}
		text("limitText", r.Has, y, fmt.Sprintf("%s has %d", r.Engine, r.Has))
	}
}

// spoken is the chart for those who cannot see it.
func (r *slotsReport) spoken() string {
	var parts []string
	for i, w := range r.rows {
		if i == 0 || i == r.best || i == len(r.rows)-1 || w.Slots == r.Has {
			parts = append(parts, fmt.Sprintf("with %d: %s hits, %d wait for a slot, %s added", w.Slots, percent(w), w.Blocked, shortTime(w.Added)))
		}
	}
	return strings.Join(parts, "; ")
}
