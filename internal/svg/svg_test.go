package svg

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestTicksAreRoundAndFew(t *testing.T) {
	for most := 0.001; most < 2000; most *= 1.07 {
		step, top := Ticks(most)
		if n := top / step; top < most || top > 1.6*most || n < 1.9 || n > 10 {
			t.Errorf("up to %g: steps of %g up to %g", most, step, top)
		}
	}
	if step, top := Ticks(0); step <= 0 || top <= 0 {
		t.Errorf("up to 0: steps of %g up to %g", step, top)
	}
}

// TestImageIsWellFormed whatever the names in it are.
func TestImageIsWellFormed(t *testing.T) {
	m := New(100, 50, `a "b" <c> & d`, "</desc>", "\n  .mine { fill: red; }\n")
	m.P(`<text x="%g">%s</text>`, 1.5, Escape("<&>"))
	var texts []string
	for dec := xml.NewDecoder(strings.NewReader(m.String())); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v\n%s", err, m.String())
		}
		if text, ok := token.(xml.CharData); ok {
			texts = append(texts, string(text))
		}
	}
	for _, want := range []string{`a "b" <c> & d`, "</desc>", "<&>"} {
		found := false
		for _, text := range texts {
			found = found || text == want
		}
		if !found {
			t.Errorf("no text %q in %q", want, texts)
		}
	}
}
