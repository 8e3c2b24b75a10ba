package measure

import (
	"fmt"
	"io"
)

// An Aim is a ratio that something is built for.
type Aim struct {
	What     string  `json:"what"`
	Case     string  `json:"case"` // workload, or sizes
	Wanted   string  `json:"wanted"`
	Measured float64 `json:"measured"`
	Met      bool    `json:"met"`
}

// AtLeast is the aim that have is at least want.
func AtLeast(what, where string, have, want float64) Aim {
	return Aim{what, where, fmt.Sprintf("≥ %.2f", want), have, have >= want}
}

// Below is the aim that have is less than want.
func Below(what, where string, have, want float64) Aim {
	return Aim{what, where, fmt.Sprintf("< %g", want), have, have < want}
}

// WriteAims writes the aims and how many are met in Markdown; nothing if there
// are none.
func WriteAims(w io.Writer, aims []Aim) {
	if len(aims) == 0 {
		return
	}
	fmt.Fprint(w, "\n## Aims\n\n| aim | case | wanted | measured | |\n|---|---|---|---|---|\n")
	met := 0
	for _, a := range aims {
		mark := "missed"
		if a.Met {
			mark = "met"
			met++
		}
		fmt.Fprintf(w, "| %s | %s | %s | %.2f | %s |\n", a.What, a.Case, a.Wanted, a.Measured, mark)
	}
	fmt.Fprintf(w, "\n%d of %d aims met.\n", met, len(aims))
}
