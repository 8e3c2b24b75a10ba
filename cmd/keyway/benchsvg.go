package main

import (
	"fmt"
	"math"
	"strings"
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

// svgStyle follows the reader's choice of light or dark, also where the file is
// shown as an image.
const svgStyle = `
  :root { --paper: #ffffff; --ink: #1f2328; --faint: #59636e; --grid: #d8dee4; --encrypt: #0969da; --decrypt: #7fb2e5; --limit: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --grid: #2f353d; --encrypt: #4493f8; --decrypt: #1f5aa8; --limit: #f0883e; }
  }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; fill: var(--ink); }
  .paper { fill: #ffffff; fill: var(--paper); }
  .title { font-size: 17px; font-weight: 600; }
  .mode { font-size: 13px; font-weight: 600; }
  .faint { fill: #59636e; fill: var(--faint); }
  .used { font-weight: 600; }
  .figure { font-size: 10px; paint-order: stroke; stroke: #ffffff; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
  .grid { stroke: #d8dee4; stroke: var(--grid); stroke-width: 1; }
  .encrypt { fill: #0969da; fill: var(--encrypt); }
  .decrypt { fill: #7fb2e5; fill: var(--decrypt); }
  .limit { stroke: #bc4c00; stroke: var(--limit); stroke-width: 1.5; stroke-dasharray: 4 3; fill: none; }
  .limitText { font-size: 10px; fill: #bc4c00; fill: var(--limit); }
`

// svg draws the report as an image that stands on its own.
func (r *benchReport) svg() string {
	d := r.chartData()
	height := svgHead + svgFoot
	for _, g := range d.groups {
		height += svgGroup + svgRow*float64(len(g.bars)/2)
	}
	width := svgLabels + float64(len(d.panels))*(svgPanel+svgGap)
	step, top := ticks(d.max / 1e9)
	x := func(panel int, bytesPS float64) float64 {
		return svgLabels + float64(panel)*(svgPanel+svgGap) + bytesPS/1e9/top*svgPanel
	}

	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	p(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img" aria-labelledby="t d">`, width, height, width, height)
	p(`<title id="t">Speed of the data-unit ciphers on one core</title>`)
	p(`<desc id="d">%s</desc>`, escape(r.svgText(d)))
	p(`<style>%s</style>`, svgStyle)
	p(`<rect class="paper" width="%g" height="%g"/>`, width, height)
	p(`<text class="title" x="16" y="28">Data-unit ciphers on one core, GB/s</text>`)
	p(`<text class="faint" x="16" y="46">%s</text>`, escape(r.Machine))
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
				p(`<text class="%s" x="28" y="%g">%s</text>`, class, y+svgBar+4, escape(bar.impl))
			} else {
				y += svgRow
			}
			for i, v := range bar.v {
				p(`<rect class="%s" x="%.1f" y="%g" width="%.1f" height="%g"><title>%s %s, %s, %s: %s GB/s</title></rect>`, bar.op, x(i, 0), at,
					math.Max(1, x(i, v)-x(i, 0)), svgBar-1, g.mode, escape(bar.impl), bar.op, d.panels[i].title(), gb(v))
				p(`<text class="figure" x="%.1f" y="%g">%s</text>`, x(i, v)+4, at+svgBar-2, gb(v))
			}
		}
	}
	p(`</svg>`)
	return b.String()
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

// ticks returns a round step and its first multiple that is at least most, four
// to eight steps up.
func ticks(most float64) (step, top float64) {
	if most <= 0 {
		return 1, 1
	}
	ten := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, f := range []float64{1, 2, 5, 10} {
		if step = ten * f; most/step <= 8 {
			break
		}
	}
	return step, step * math.Ceil(most/step)
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}
