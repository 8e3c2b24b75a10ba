package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"keyway/blkcrypto"
	"keyway/internal/measure"
)

// measured is a report with made-up figures: what it says must be in every form.
func measured() *benchReport {
	p := &benchPlan{cores: []int{1, 2}, requests: []int{4096}}
	for _, unit := range []int{512, 4096} {
		for _, units := range []int{1, 8, 256} {
			p.cells = append(p.cells, benchCell{unit, units})
		}
	}
	p.subjects = []measure.Subject{
		{Mode: blkcrypto.AES256XTS, Impl: "fast", Default: true}, {Mode: blkcrypto.AES256XTS, Impl: "<slow>"},
		{Mode: blkcrypto.Adiantum, Impl: "wide", Default: true},
	}
	r := &benchReport{Machine: "A & B", Processors: 2, plan: p}
	for _, cores := range p.cores {
		r.Rounds = append(r.Rounds, roundsRow{128, cores, 7e9 * float64(cores)}, roundsRow{256, cores, 14e9 * float64(cores)})
		for i, s := range p.subjects {
			for _, op := range []string{"encrypt", "decrypt"} {
				for _, c := range p.cells {
					v := []float64{12e9, 0.0416e9, 3e9}[i] * float64(cores)
					if op == "decrypt" {
						v *= 0.9
					}
					r.Ciphers = append(r.Ciphers, cipherRow{Mode: s.Mode.String(), Impl: s.Impl, Default: s.Default,
						Operation: op, DataUnit: c.unit, Units: c.units, Cores: cores, BytesPS: v})
					r.Copies = append(r.Copies, copyRow{c.size(), cores, 30e9})
				}
			}
		}
	}
	r.Path = []pathRow{{Mode: "Adiantum", Operation: "write", By: "engine", DataUnit: 4096, Size: 4096, BytesPS: 2e9, NsPerReq: 2048}}
	r.compare()
	return r
}

func TestBenchComparesWithTheLimits(t *testing.T) {
	r := measured()
	for _, tc := range []struct {
		s             measure.Subject
		cores         int
		limit, copied float64
	}{
		// 14e9 rounds of 16 bytes, 14 for a block: 16 GB/s for AES-256.
		{r.plan.subjects[0], 1, 12. / 16, 12. / 30},
		{r.plan.subjects[0], 2, 12. / 16, 24. / 30},
		{r.plan.subjects[2], 1, 0, 3. / 30},
	} {
		x := r.figure(tc.s, "encrypt", benchCell{512, 8}, tc.cores)
		if x.OfLimit != tc.limit || x.OfMemcpy != tc.copied {
			t.Errorf("%v on %d cores: %.3f of the limit, %.3f of memcpy, want %.3f and %.3f", tc.s.Mode, tc.cores, x.OfLimit, x.OfMemcpy, tc.limit, tc.copied)
		}
	}
}

func TestBenchTableFits80Columns(t *testing.T) {
	var b strings.Builder
	r := measured()
	if err := r.table(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{
		"AES-256 at most 16.0 GB/s", "one core: AES rounds allow 16.0", "2 cores: AES rounds allow 32.0",
		"\n* fast     encrypt  12.0  75%", "\n  <slow>   encrypt 0.042     0.042", "\n* wide     encrypt  3.00  10%", "\nAdiantum              4K  2.00   2.05",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestBenchChartFitsTheTerminal(t *testing.T) {
	for _, width := range []int{10, 60, 80, 131, 400} {
		var b strings.Builder
		measured().chartData().text(&b, width, false)
		want, n := min(max(width, 60), 160), 0
		for line := range strings.Lines(b.String()) {
			if !strings.Contains(line, "crypt ") {
				continue
			}
			n++
			if have := utf8.RuneCountInString(strings.TrimRight(line, "\n")); have > want || have < want-2 {
				t.Errorf("width %d: a line of %d columns, want %d: %s", width, have, want, line)
			}
		}
		if n != 6 {
			t.Errorf("width %d: %d bars, want 6", width, n)
		}
	}
}

func TestBar(t *testing.T) {
	plain := func(s string) string { return s }
	for _, tc := range []struct {
		part, limit float64
		room        int
		want        string
	}{
		{1, 0, 4, "████"},
		{0.5, 0, 4, "██  "},
		{0.5, 0.75, 4, "██ │"},
		{0.40625, 1, 4, "█▋ │"},
		{0.0001, 0.5, 4, "▏ │ "},
		{0, 0.5, 4, "  │ "},
		{1, 0.5, 4, "████"}, // beyond the limit: noise, but no crash
		{1.5, 1, 4, "████"},
	} {
		if have := bar(tc.part, tc.limit, tc.room, plain, plain); have != tc.want {
			t.Errorf("bar(%g, %g, %d) = %q, want %q", tc.part, tc.limit, tc.room, have, tc.want)
		}
	}
}

func TestBenchSVGIsWellFormed(t *testing.T) {
	r := measured()
	text := r.svg()
	bars, texts := map[string]int{}, []string{}
	for dec := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		switch x := token.(type) {
		case xml.StartElement:
			for _, a := range x.Attr {
				if a.Name.Local == "class" {
					bars[x.Name.Local+" "+a.Value]++
				}
			}
		case xml.CharData:
			texts = append(texts, string(x))
		}
	}
	// Three implementations in two panels, and one rectangle each in the legend.
	if bars["rect encrypt"] != 7 || bars["rect decrypt"] != 7 {
		t.Errorf("%d and %d bars, want 7 and 7", bars["rect encrypt"], bars["rect decrypt"])
	}
	// AES-256-XTS has a limit in both panels, Adiantum none; one is the legend's.
	if bars["path limit"] != 3 {
		t.Errorf("%d lines of limits, want 3", bars["path limit"])
	}
	for _, want := range []string{"A & B", "<slow>", "fast", "Adiantum", "16.0"} {
		if !slices.Contains(texts, want) {
			t.Errorf("no text %q in the chart", want)
		}
	}
}
