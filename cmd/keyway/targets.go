package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keyway/dm"
	"keyway/doc/targets"
	"keyway/internal/nearest"
)

// targetInfo is a line of targets.
type targetInfo struct {
	Name    string `json:"name"`
	Args    string `json:"arguments"`
	Summary string `json:"summary,omitempty"`
	Page    string `json:"page,omitempty"` // Markdown; of one target only
}

func (c *cli) targets() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use:   "targets [NAME]",
		Short: "List the targets that tables may name, or print the manual page of one",
		Long: `List the targets that tables may name, or print the manual page of one: its table
line with every argument, what becomes of requests and keys, errors, status,
messages, an example, and how it differs from Linux. No daemon is needed.`,
		Args:              atMost("NAME"),
		ValidArgsFunction: completeTargets,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return c.printPage(args[0])
			}
			return c.printTargets()
		},
	})
}

// completeTargets gives a shell the names, each with what it is for.
func completeTargets(_ *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) == 0 {
		for _, t := range allTargets() {
			names = append(names, cobra.CompletionWithDesc(t.Name, t.Summary))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func allTargets() []targetInfo {
	var all []targetInfo
	for _, typ := range dm.Types() {
		t := targetInfo{Name: typ.Name, Args: typ.Usage}
		if page, ok := targets.Page(typ.Name); ok {
			t.Summary = targets.Summary(page)
		}
		all = append(all, t)
	}
	return all
}

func (c *cli) printTargets() error {
	all := allTargets()
	if c.json {
		return printJSON(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, t := range all {
		fmt.Fprintf(w, "%s\t%s\n", t.Name, t.Summary)
	}
	return w.Flush()
}

func (c *cli) printPage(name string) error {
	var names []string
	for _, t := range allTargets() {
		names = append(names, t.Name)
		if t.Name != name {
			continue
		}
		t.Page, _ = targets.Page(name)
		if c.json {
			return printJSON(t)
		}
		_, err := fmt.Print(t.Page)
		return err
	}
	err := misuse{error: fmt.Errorf("targets: there is no target %q", name), way: "\"keyway targets\" lists them"}
	if near := nearest.Of(name, names); near != "" {
		err.way = fmt.Sprintf("did you mean %q?", near)
	}
	return err
}
