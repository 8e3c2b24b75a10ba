package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keyway/control"
)

func (c *cli) daemonInfo(cmd *cobra.Command) error {
	v, err := c.client().Version(cmd.Context())
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(v)
	}
	printDaemon(v)
	return nil
}

func printDaemon(v control.Version) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 1, ' ', 0)
	defer w.Flush()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s:\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("Version", "%s", v.Version)
	line("PID", "%d", v.PID)
	line("State directory", "%s", v.State)
	m := v.KeyMemory
	policy := m.Policy
	if !m.HasHidden {
		policy += " (the kernel offers no hidden memory)"
	}
	line("Key memory", "%s", policy)
	line("Hidden", "%d bytes", m.Hidden)
	line("Locked", "%d bytes", m.Locked)
	if m.Ordinary > 0 {
		line("NOT LOCKED", "%d bytes: may be written to swap", m.Ordinary)
	}
	limit := "no limit"
	if m.Limit >= 0 {
		limit = fmt.Sprintf("%d bytes (RLIMIT_MEMLOCK)", m.Limit)
	}
	if m.Process >= 0 {
		line("Locked in all", "%d bytes of %s", m.Process, limit)
	} else {
		line("Limit", "%s", limit)
	}
}
