package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/size"
)

func (c *cli) fscryptStatus() *cobra.Command {
	var ff fsFlags
	cmd := &cobra.Command{
		Use:   "status VOLUME [PATH]",
		Short: "Describe a file system: its encryption policies, which keys they need, who decrypts",
		Long: `Describe a file system, or one file of it: every encryption policy that is in use, the
master key that it needs and whether --key gave it, how the contents are encrypted
under it (mode, data unit, bytes of data unit numbers, one key for each file or one for
all), and who decrypts them as the device stands: an engine, or software.

Without a PATH all directories are read.

` + volumeHelpText,
		Example: `  keyway fscrypt status phone.img
  keyway fscrypt status userdata /media/1.jpg --key ./user.key`,
		Args: volumeAndPath,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			v, err := c.openFS(cmd, &ff, args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, v.close(cmd.Context())) }()
			ctx, stop := c.limited(cmd.Context())
			defer stop()
			st, err := v.status(ctx, control.Fscrypt{Paths: paths(args[1:])})
			if err != nil {
				return cause(ctx, err)
			}
			if c.json {
				err = printJSON(st)
			} else {
				printFileSystem(os.Stdout, st)
			}
			for _, p := range st.Problems {
				printProblem(control.FscryptProblem{Error: p})
			}
			if err == nil && len(st.Problems) > 0 {
				err = errProblems
			}
			return err
		},
	}
	ff.add(cmd.Flags(), "key")
	cmd.ValidArgsFunction = c.completeVolume(&ff, 1)
	return c.withTimeout(c.withJSON(cmd), giveUpReading)
}

func printFileSystem(out io.Writer, st control.FscryptStatus) {
	w := tabwriter.NewWriter(out, 0, 8, 1, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s:\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("File system", "%s, %s, blocks of %d bytes", st.FileSystem, size.Format(st.Size), st.BlockSize)
	line("UUID", "%s", st.UUID)
	if st.Label != "" {
		line("Label", "%s", printable(st.Label))
	}
	line("Features", "%s", strings.Join(st.Features, " "))
	for _, warning := range st.Warnings {
		line("Warning", "%s", warning)
	}
	if e := st.Path; e != nil {
		w.Flush()
		fmt.Fprintf(out, "\n/%s\n", printable(e.Path))
		line("  Inode", "%d, %s, %d bytes", e.Inode, e.Type, e.Size)
		if !e.Encrypted {
			line("  Encrypted", "no")
		}
	} else {
		line("Not encrypted", "%s", counted(st.Plain, "file"))
	}
	w.Flush()
	for _, p := range st.Policies {
		printPolicy(out, p, st.Path == nil)
	}
	if len(st.Keys) == 0 {
		return
	}
	fmt.Fprintln(out)
	for _, k := range st.Keys {
		name := "identifier " + k.Identifier
		switch {
		case k.Wrapped:
			name += ", hardware-wrapped"
		case k.Descriptor != "":
			name += ", descriptor " + k.Descriptor
		}
		for_ := "for no policy here"
		if k.Policies == 1 {
			for_ = "for 1 policy"
		} else if k.Policies > 1 {
			for_ = fmt.Sprintf("for %d policies", k.Policies)
		}
		fmt.Fprintf(out, "Key from %s: %s, %s\n", k.Source, name, for_)
	}
}

func printPolicy(out io.Writer, p control.FscryptPolicy, all bool) {
	what := "identifier"
	if p.Version == 1 {
		what = "descriptor"
	}
	fmt.Fprintf(out, "\nPolicy v%d of key %s %s\n", p.Version, what, p.Key)
	w := tabwriter.NewWriter(out, 0, 8, 1, ' ', 0)
	defer w.Flush()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s:\t%s\n", name, fmt.Sprintf(format, args...))
	}
	key := "missing: names and contents are locked"
	if p.Present {
		key = "here, from " + p.Source
	}
	line("Key", "%s", key)
	if p.Problem != "" {
		line("Problem", "%s", p.Problem)
	}
	line("Contents", "%s, data units of %d bytes", p.Contents, p.DataUnit)
	line("Names", "%s, padded to %d bytes", p.Names, p.Padding)
	if len(p.Flags) > 0 {
		line("Flags", "%s", strings.Join(p.Flags, ", "))
	}
	if c := p.Config; c != nil {
		each := "one for all files"
		if p.PerFile {
			each = "one for each file"
		}
		line("Keys of contents", "%s: %s, %s, %d-byte units, %d DUN bytes", each, c.Mode, c.KeyType, c.DataUnit, c.DUNBytes)
	}
	switch p.Service {
	case "engine":
		line("Decrypted by", "an engine")
	case "software":
		line("Decrypted by", "software: %s", p.Why)
	case "nobody":
		line("Decrypted by", "nobody: %s", p.Why)
	}
	if all {
		line("Used by", "%s, first /%s", counted(p.Files, "file"), printable(p.First))
	}
}
