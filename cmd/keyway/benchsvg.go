package main

import (
	"fmt"
	"math"
	"strings"

	"keyway/internal/svg"
)

// Sizes of the SVG chart in its own units, which are pixels at scale 1.
const (
	svgLabels = 164.0 // left of the first panel
	svgPanel  = 330.0 // width of the bars of a panel
	svgGap    = 56.0  // after each panel, where the longest bar's figure goes
	svgBar    = 11.0
	svgRow    = 2*svgBar + 9 // an implementation: two bars and air
	svgHead   = 92.0
	svgGroup  = 34.0 // title of a mode
	svgFoot   = 42.0
)

// svgRules are what only this chart has.
const svgRules = `  .mode { font-size: 13px; font-weight: 600; }
  .used { font-weight: 600; }
  .encrypt { fill: #0969da; fill: var(--first); }
  .decrypt { fill: #7fb2e5; fill: var(--second); }
`

// svg draws the report as an image that stands on its own.
func (r *benchReport) svg() string {
	d := r.chartData()
	height := svgHead + svgFoot
	for _, g := range d.groups {
		height += svgGroup + svgRow*float64(len(g.bars)/2)
	}
	width := svgLabels + float64(len(d.panels))*(svgPanel+svgGap)
	step, top := svg.Ticks(d.max / 1e9)
	x := func(panel int, bytesPS float64) float64 {
		return svgLabels + float64(panel)*(svgPanel+svgGap) + bytesPS/1e9/top*svgPanel
	}

	m := svg.New(width, height, "Speed of the data-unit ciphers on one core", r.svgText(d), svgRules)
	p := m.P
	p(`<text class="title" x="16" y="28">Data-unit ciphers on one core, GB/s</text>`)
	p(`<text class="faint" x="16" y="46">%s</text>`, svg.Escape(r.Machine))
	p(`<rect class="encrypt" x="16" y="57" width="10" height="10"/><text x="31" y="66">encrypt</text>`)
	p(`<rect class="decrypt" x="88" y="57" width="10" height="10"/><text x="103" y="66">decrypt</text>`)
	p(`<path class="limit" d="M160 62H184"/><text x="190" y="66">what the AES rounds of the core allow</text>`)
	p(`<text class="used" x="446" y="66">bold: what Keyway uses here</text>`)

	bottom := height - svgFoot
	for i, c := range d.panels {
		p(`<text class="faint" x="%.1f" y="%g">%s in a call</text>`, x(i, 0), svgHead-6, c.title())
		for v := 0.0; v <= top+step/2; v += step {
			p(`<path class="grid" d="M%.1f %gV%g"/>`, x(i, v*1e9), svgHead, bottom)
			p(`<text class="faint" text-anchor="middle" x="%.1f" y="%g">%g</text>`, x(i, v*1e9), bottom+16, v)
		}
	}
	y := svgHead
	for _, g := range d.groups {
		p(`<text class="mode" x="16" y="%g">%s</text>`, y+22, g.mode)
		y += svgGroup
		if g.limit > 0 {
			for i := range d.panels {
				p(`<path class="limit" d="M%.1f %gV%g"/>`, x(i, g.limit), y-4, y+svgRow*float64(len(g.bars)/2)-5)
				p(`<text class="limitText" text-anchor="middle" x="%.1f" y="%g">%s</text>`, x(i, g.limit), y-7, gb(g.limit))
			}
		}
		for j, bar := range g.bars {
			at := y + svgBar*float64(j%2)
			if j%2 == 0 {
				class := "name"
				if bar.used {
					class = "used"
				}
				p(`<text class="%s" x="28" y="%g">%s</text>`, class, y+svgBar+4, svg.Escape(bar.impl))
			} else {
				y += svgRow
			}
			for i, v := range bar.v {
				p(`<rect class="%s" x="%.1f" y="%g" width="%.1f" height="%g"><title>%s %s, %s, %s: %s GB/s</title></rect>`, bar.op, x(i, 0), at,
					math.Max(1, x(i, v)-x(i, 0)), svgBar-1, g.mode, svg.Escape(bar.impl), bar.op, d.panels[i].title(), gb(v))
				p(`<text class="figure" x="%.1f" y="%g">%s</text>`, x(i, v)+4, at+svgBar-2, gb(v))
			}
		}
	}
	return m.String()
}

// svgText is the chart for those who cannot see it.
func (r *benchReport) svgText(d chartData) string {
	var parts []string
	for _, g := range d.groups {
		for _, b := range g.bars {
			for i, v := range b.v {
				if b.used {
					parts = append(parts, fmt.Sprintf("%v %s, %s: %s GB/s", g.mode, b.op, d.panels[i].title(), gb(v)))
				}
			}
		}
	}
	return r.Machine + ". " + strings.Join(parts, "; ")
}
