package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/keysource"
)

// completionTime is how long a shell may wait for names.
const completionTime = 2 * time.Second

// completeVolume gives a shell the devices, to which it adds files by itself, and for
// what follows paths in the file system; most bounds how many, 0: any number.
func (c *cli) completeVolume(ff *fsFlags, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return c.completeDevice(cmd), cobra.ShellCompDirectiveDefault
		case most > 0 && len(args) > most:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.completePath(cmd, ff, args[0], begun)
	}
}

func (c *cli) completeDevice(cmd *cobra.Command) (names []cobra.Completion) {
	all, err := c.client().Devices(cmd.Context())
	if err != nil {
		return nil
	}
	for _, d := range all {
		names = append(names, cobra.CompletionWithDesc(d.Name, "device"))
	}
	return names
}

// completePath gives a shell the names that a path may go on with. Of the keys it reads
// those that lie in files: nobody is asked, and nothing is run, because of a tab.
func (c *cli) completePath(cmd *cobra.Command, ff *fsFlags, name, begun string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	ctx, stop := context.WithTimeout(cmd.Context(), completionTime)
	defer stop()
	cmd.SetContext(ctx)
	quiet := *ff
	quiet.keys, quiet.trace, quiet.write = nil, "", false
	for _, word := range ff.keys {
		source := word[strings.IndexByte(word, '=')+1:]
		if s, err := keysource.Parse(source); err == nil && s.File() != "" {
			quiet.keys = append(quiet.keys, word)
		}
	}
	v, err := c.openFS(cmd, &quiet, name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer v.close(ctx)
	dir := begun[:strings.LastIndexByte(begun, '/')+1]
	r := control.Fscrypt{Paths: paths([]string{dir}), Brief: true}
	directive := cobra.ShellCompDirectiveNoFileComp
	v.list(ctx, r, control.FscryptSink{Entry: func(e control.FscryptEntry) error {
		word := dir + e.Path[strings.LastIndexByte(e.Path, '/')+1:]
		if e.PathBytes != nil || printable(word) != word || !strings.HasPrefix(word, begun) {
			return nil // no shell would keep such a name whole
		}
		if e.Type == "directory" {
			word += "/"
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		names = append(names, word)
		return nil
	}})
	return names, directive
}
