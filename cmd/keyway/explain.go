package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keyway/control"
)

func (c *cli) explain() *cobra.Command {
	var q control.Explain
	cmd := &cobra.Command{
		Use:   "explain NAME SECTOR",
		Short: "Say where a request for a sector goes, who encrypts it, and why",
		Long: `Explain follows a request for one sector of a device through every layer down
to the medium: the row of each live table, where its target sends the request, the
data unit number (DUN) of each encryption, and who does it: an engine beneath, or
the fallback of some level and what keeps the engines from it. Nothing is read or
written.

With --key it is a request that an upper layer sends with that key of the store,
under the mode and data unit that the key was added with.`,
		Example: `  keyway explain vol 1000
  keyway explain vol 1000 --key file7 --skip-default-key --write`,
		Args: exactly("NAME", "SECTOR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if q.Sector, err = strconv.ParseInt(args[1], 10, 64); err != nil || q.Sector < 0 {
				return misusef("explain: sector %q is not a number", args[1])
			}
			if q.DUN != "" && q.Key == "" {
				return misusef("explain: --dun goes with --key")
			}
			x, err := c.client().Explain(cmd.Context(), args[0], q)
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(x)
			}
			printExplanation(os.Stdout, x)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Key, "key", "", "the request comes with this `key` of the store")
	f.StringVar(&q.DUN, "dun", "", "`number` of the data unit that holds the sector (default: counted from the start of the device)")
	f.BoolVar(&q.Write, "write", false, "a write (default: a read)")
	f.BoolVar(&q.Marked, "skip-default-key", false, "the request is marked, so that default-key leaves it alone")
	return c.withJSON(cmd)
}

func printExplanation(w io.Writer, x control.Explanation) {
	fmt.Fprintf(w, "%s of sector %d of %s: the %d bytes from sector %d on\n", x.Op, x.Sector, x.Device, x.Length, x.Offset>>9)
	for _, s := range x.Steps {
		printStep(w, s, x.Op)
	}
	fmt.Fprintln(w)
	for _, name := range x.Waits {
		fmt.Fprintf(w, "waits: %s is suspended, until \"keyway resume %s\"\n", name, name)
	}
	if x.Fails != "" {
		fmt.Fprintf(w, "fails: %s\n", x.Fails)
	}
	for i, c := range x.Ciphers {
		again := ""
		if i > 0 {
			again = "again, "
		}
		who := fmt.Sprintf("by %s, at %s", c.Engine, c.Device)
		switch c.By {
		case "fallback":
			who = fmt.Sprintf("in software (%s), at %s", c.Engine, c.Device)
		case "nobody":
			who = "by nobody: see above"
		}
		fmt.Fprintf(w, "encrypted: %skey %q, DUN %s, %s\n", again, c.Key, c.DUN, who)
	}
	switch m := x.Medium; {
	case m != nil:
		content := m.Content
		if content == "as sent" {
			content = "as sent, which is marked as encrypted already"
		}
		fmt.Fprintf(w, "medium: %s, byte %d: %s\n", m.Backend, m.Offset, content)
	case x.Fails == "" && len(x.Steps) > 0 && x.Steps[len(x.Steps)-1].Unknown:
		fmt.Fprintln(w, "medium: only the target knows where")
	default:
		fmt.Fprintln(w, "medium: none is reached")
	}
}

// printStep prints what one device does.
func printStep(w io.Writer, s control.ExplainStep, op string) {
	fmt.Fprintf(w, "\n%s, sector %d", s.Device, s.Sector)
	switch {
	case s.Row == 0:
	case s.Rows > 1:
		fmt.Fprintf(w, ": row %d of %d, %s, sectors %d to %d", s.Row, s.Rows, s.Target, s.Start, s.Start+s.Length-1)
	default:
		fmt.Fprintf(w, ": %s", s.Target)
	}
	if s.Suspended {
		fmt.Fprint(w, " (suspended)")
	}
	fmt.Fprintln(w)
	if c := s.Carries; c != nil {
		fmt.Fprintf(w, "  comes with %s\n", contextText(c))
	}
	if s.Marked {
		fmt.Fprintln(w, "  marked to skip the default key")
	}
	if s.Decision != nil {
		printDecision(w, s.Decision, op)
	}
	if s.Mapping != "" {
		fmt.Fprintf(w, "  %s\n", s.Mapping)
	}
	if c := s.Adds; c != nil {
		fmt.Fprintf(w, "  target adds %s\n", contextText(c))
	}
	if len(s.To) == 0 {
		return
	}
	var to []string
	for _, p := range s.To {
		to = append(to, fmt.Sprintf("%s, sector %d", p.Device, p.Sector))
	}
	if s.Unknown {
		fmt.Fprintf(w, "  the target does not tell where it goes; beneath: %s\n", strings.Join(to, "; "))
		return
	}
	fmt.Fprintf(w, "  goes to %s\n", to[0])
}

func printDecision(w io.Writer, d *control.ExplainDecision, op string) {
	verb := "decrypted"
	if op == "write" {
		verb = "encrypted"
	}
	switch d.By {
	case "beneath":
		fmt.Fprintln(w, "  passed on: an engine beneath serves it")
		return
	case "engine":
		fmt.Fprintf(w, "  %s by %s: %s\n", verb, d.Engine, d.State)
	case "fallback":
		fmt.Fprintf(w, "  %s here in software, by the %s: %s\n", verb, d.Engine, d.State)
	default:
		fmt.Fprintf(w, "  refused by %s: %s\n", d.Engine, d.State)
	}
	if d.Why != "" {
		fmt.Fprintf(w, "  because %s [%s]\n", d.Why, d.Reason)
	}
}

func contextText(c *control.ExplainContext) string {
	s := fmt.Sprintf("key %q (%s, %s, %d-byte units, %d DUN bytes", c.Key, c.Config.Mode, c.Config.KeyType, c.Config.DataUnit, c.Config.DUNBytes)
	if c.Config.Numbering != "" {
		s += ", numbered " + c.Config.Numbering
	}
	s += "), DUN " + c.DUN
	if c.Within > 0 {
		s += fmt.Sprintf(", byte %d of the unit", c.Within)
	}
	return s
}
