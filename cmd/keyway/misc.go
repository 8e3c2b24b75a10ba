package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"
)

func completion() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print the completion script of a shell",
		Example:   `  keyway completion bash > /etc/bash_completion.d/keyway`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      exactly("bash, zsh or fish"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(os.Stdout, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(os.Stdout)
			case "fish":
				return cmd.Root().GenFishCompletion(os.Stdout, true)
			}
			return misusef("completion: shell %q is not bash, zsh or fish", args[0])
		},
	}
}

func (c *cli) version() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			if c.json {
				return printJSON(struct {
					Version string `json:"version"`
					Go      string `json:"go"`
				}{programVersion(), runtime.Version()})
			}
			fmt.Printf("keyway %s (%s)\n", programVersion(), runtime.Version())
			return nil
		},
	})
}
