package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/size"
)

func (c *cli) explain() *cobra.Command {
	var q control.Explain
	var file, offset string
	var ff fsFlags
	cmd := &cobra.Command{
		Use:   "explain (NAME SECTOR | VOLUME --file PATH [--offset N])",
		Short: "Say where a request for a sector, or a byte of a file, goes, who encrypts it, and why",
		Long: `Explain follows a request for one sector of a device through every layer down
to the medium: the row of each live table, where its target sends the request, the
data unit number (DUN) of each encryption, and who does it: an engine beneath, or
the fallback of some level and what keeps the engines from it. Nothing is read or
written.

With --key it is a request that an upper layer sends with that key of the store,
under the mode and data unit that the key was added with.

With --file it begins a layer higher: with a byte of a regular file of the file system
on a VOLUME, whose policy, extent, key and DUN come first. --key is a master key then.

` + volumeHelpText,
		Example: `  keyway explain vol 1000
  keyway explain vol 1000 --key file7 --skip-default-key --write
  keyway explain userdata --file /media/1.jpg --offset 1M --key ./user.key
  keyway explain phone.img --file /media/1.jpg --engine ufs --key ./user.key`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("file") {
				return exactly("VOLUME")(cmd, args)
			}
			return exactly("NAME", "SECTOR")(cmd, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeDevice(cmd), cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			given := cmd.Flags().Changed
			if given("file") {
				for _, f := range []string{"dun", "write", "skip-default-key"} {
					if given(f) {
						return misusef("explain: --%s does not go with --file, which tells by itself", f)
					}
				}
				return c.explainFile(cmd, &ff, args[0], file, offset)
			}
			for _, f := range []string{"offset", "engine", "unclean"} {
				if given(f) {
					return misusef("explain: --%s goes with --file", f)
				}
			}
			if len(ff.keys) > 1 {
				return misusef("explain: a request has one key, and --key is given %d times", len(ff.keys))
			} else if len(ff.keys) == 1 {
				q.Key = ff.keys[0]
			}
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
	f.StringVar(&file, "file", "", "a byte of the regular file at this `path` from the root of the file system")
	cmd.RegisterFlagCompletionFunc("file", func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.completePath(cmd, &ff, args[0], begun)
	})
	f.StringVar(&offset, "offset", "0", "which byte of the file: `bytes`, or 4K, 1M, ...")
	ff.add(f, "key")
	f.Lookup("key").Usage = "the request comes with this `key` of the store; with --file a KEY as above, also several times"
	f.StringVar(&q.DUN, "dun", "", "`number` of the data unit that holds the sector (default: counted from the start of the device)")
	f.BoolVar(&q.Write, "write", false, "a write (default: a read)")
	f.BoolVar(&q.Marked, "skip-default-key", false, "the request is marked, so that default-key leaves it alone")
	return c.withJSON(cmd)
}

// explainFile explains a byte of a file.
func (c *cli) explainFile(cmd *cobra.Command, ff *fsFlags, volume, path, offset string) (err error) {
	r := control.Fscrypt{Paths: [][]byte{[]byte(path)}}
	if r.Offset, err = size.Parse(offset); err != nil {
		return misusef("explain: --offset: %w", err)
	}
	v, err := c.openFS(cmd, ff, volume)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close(cmd.Context())) }()
	x, err := v.explain(cmd.Context(), r)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(x)
	}
	printFileWay(os.Stdout, x)
	return nil
}

// printFileWay prints what is above the device, and then the way through it.
func printFileWay(w io.Writer, x control.FscryptExplanation) {
	fmt.Fprintf(w, "byte %d of /%s: inode %d, %d bytes\n", x.Offset, printable(x.File.Path), x.File.Inode, x.File.Size)
	switch p := x.Policy; {
	case p == nil:
		fmt.Fprintln(w, "  not encrypted by fscrypt")
	case !p.Present:
		fmt.Fprintf(w, "  encrypted: policy v%d, %s, of master key %s, which is not here: nobody can say which key and DUN\n", p.Version, p.Contents, p.Key)
	default:
		each := "one key for all files"
		if p.PerFile {
			each = "a key for each file"
		}
		fmt.Fprintf(w, "  encrypted: policy v%d, %s, %s, of master key %s\n", p.Version, p.Contents, strings.Join(append([]string{each}, p.Flags...), ", "), p.Key)
	}
	switch {
	case x.Inline:
		fmt.Fprintln(w, "  in the inode: no block belongs to it")
		return
	case x.Hole:
		fmt.Fprintf(w, "  in a hole of %d bytes from byte %d on: reads as zeros, and no request is sent\n", x.Length, x.Extent)
		return
	}
	fmt.Fprintf(w, "  in an extent of %d bytes from byte %d on; byte %d, sector %d of %s\n", x.Length, x.Extent, x.DeviceOff, x.DeviceOff>>9, x.Way.Device)
	if x.Key != "" {
		fmt.Fprintf(w, "  read with key %q, DUN %s\n", x.Key, x.DUN)
	}
	fmt.Fprintln(w)
	printExplanation(w, *x.Way)
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
