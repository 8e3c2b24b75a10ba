package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"keyway/internal/slotstudy"
)

func studied() *slotsReport {
	return &slotsReport{
		Engine: "<ufs>", Has: 2, Requests: 4000, Keys: 3, Engines: 1, Peak: 3, Possible: 1000, HitRate: 99, best: 2,
		rows: []slotstudy.Row{
			{Slots: 1, Programs: 4000, Waits: 2, Blocked: 2, Waited: 3 * time.Second, Added: 2 * time.Second},
			{Slots: 2, Hits: 500, Programs: 3500, Waits: 1, Blocked: 1, Added: time.Millisecond},
			{Slots: 3, Hits: 1000, Programs: 3000},
		},
	}
}

// TestSlotsSVGIsWellFormed, has a point for each number of slots in each of three panels,
// a curve or two in each, and marks what is enough and what the engine has.
func TestSlotsSVGIsWellFormed(t *testing.T) {
	text := studied().svg()
	classes, texts := map[string]int{}, []string{}
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
					classes[x.Name.Local+" "+a.Value]++
				}
			}
		case xml.CharData:
			texts = append(texts, string(x))
		}
	}
	// Two of the lines are in legends, and one of the limits is that of the hits.
	for class, want := range map[string]int{"circle dot": 9, "path line": 5, "path other": 4, "path enough": 3, "path limit": 4} {
		if classes[class] != want {
			t.Errorf("%d times %s, want %d", classes[class], class, want)
		}
	}
	for _, want := range []string{"Keyslots for 4,000 requests with 3 keys", "3 are enough", "<ufs> has 2", "possible", "2s", "1: added, 2s", "keyslots"} {
		if !slices.Contains(texts, want) {
			t.Errorf("no text %q in %q", want, texts)
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Error("a place in the chart is no number")
	}
}

func TestParseSlots(t *testing.T) {
	for text, want := range map[string][]int{"8": {8}, "3,1-2,2": {1, 2, 3}, "4096": {4096}, "4097": nil, "2-1": nil, "": nil, "-1": nil, "1-": nil, "a": nil} {
		if got, err := parseSlots(text); !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestShortTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 999: "999ns", 1000: "1.00µs", 12345: "12.3µs", 999600: "1000µs", 1234567: "1.23ms", 98765432: "98.8ms",
		1234567890: "1.23s", 100 * time.Second: "100s", -5000: "-5.00µs",
	} {
		if got := shortTime(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
	for text, want := range map[string]string{"1.50s": "1.5s", "2.00s": "2s", "500ms": "500ms", "0": "0", "10.0µs": "10µs"} {
		if got := round(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
