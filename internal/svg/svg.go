// Package svg has what the charts have in common: a page that follows the reader's
// choice of light or dark, axes with round steps, and text that is safe in XML.
package svg

import (
	"fmt"
	"math"
	"strings"
)

// style is that of every chart; the colours are variables for renderers that know them,
// and those of light paper for the rest.
const style = `
  :root { --paper: #ffffff; --ink: #1f2328; --faint: #59636e; --grid: #d8dee4; --first: #0969da; --second: #7fb2e5; --limit: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --grid: #2f353d; --first: #4493f8; --second: #1f5aa8; --limit: #f0883e; }
  }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; fill: var(--ink); }
  .paper { fill: #ffffff; fill: var(--paper); }
  .title { font-size: 17px; font-weight: 600; }
  .faint { fill: #59636e; fill: var(--faint); }
  .figure { font-size: 10px; paint-order: stroke; stroke: #ffffff; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
  .grid { stroke: #d8dee4; stroke: var(--grid); stroke-width: 1; }
  .limit { stroke: #bc4c00; stroke: var(--limit); stroke-width: 1.5; stroke-dasharray: 4 3; fill: none; }
  .limitText { font-size: 10px; fill: #bc4c00; fill: var(--limit); }
`

// An Image is a chart in the making, in its own units, which are pixels at scale 1.
type Image struct{ b strings.Builder }

// New returns an image with paper and title. describe is the chart for those who cannot
// see it; rules are added to the style.
func New(width, height float64, name, describe, rules string) *Image {
	m := &Image{}
	m.P(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img" aria-labelledby="t d">`, width, height, width, height)
	m.P(`<title id="t">%s</title>`, Escape(name))
	m.P(`<desc id="d">%s</desc>`, Escape(describe))
	m.P(`<style>%s%s</style>`, style, rules)
	m.P(`<rect class="paper" width="%g" height="%g"/>`, width, height)
	return m
}

// P adds a line of SVG.
func (m *Image) P(format string, a ...any) { fmt.Fprintf(&m.b, format+"\n", a...) }

// String returns the whole image.
func (m *Image) String() string { return m.b.String() + "</svg>\n" }

// Ticks returns a round step and its first multiple that is at least most, four
// to eight steps up.
func Ticks(most float64) (step, top float64) {
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

// Escape makes s text of an element or of an attribute in double quotes.
func Escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}
