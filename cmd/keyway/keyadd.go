package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/daemon"
	"keyway/internal/keysource"
	"keyway/internal/secret"
	"keyway/internal/size"
)

// keyAddFlags say where a key comes from.
type keyAddFlags struct {
	from, file string
	fd         int
	again      bool
}

func (c *cli) keyAdd() *cobra.Command {
	var r control.AddKey
	var from keyAddFlags
	var dataUnit string
	cmd := &cobra.Command{
		Use:   "add NAME --mode M (--from SOURCE [-- ARG...] | --file F | --fd N | -)",
		Short: "Add a key: its bytes, exactly as long as the mode takes, from a file, systemd, a program, age, LUKS, a person, ...",
		Long: `Add a key: its bytes, exactly as long as the mode takes, from a source:

` + sourcesHelp() + `
A path that starts with / or ./ is a file, "-" is standard input; %20 stands for a
blank, and so on; "?encoding=hex" or "base64" decodes text from any source. --file F,
--fd N and - are short for file:F, fd:N and stdin. Passphrases are asked for on the
terminal, or are the first line of standard input; the daemon never sees them.

The source is read here, and the daemon gets the key alone, by descriptor. It reads
the source itself when it starts, if it can do so without anybody's help and without
running a program; programs it runs if its configuration names them. Other keys have
to be added again then, under the same name, and the devices that need them come to
life at that moment. --again makes the daemon read the source of a key that is
missing once more.`,
		Example: `  keyway key add disk0 --mode AES-256-XTS --file disk0.key
  head -c 64 /dev/urandom | keyway key add scratch --mode AES-256-XTS -
  keyway key add vault --mode AES-256-XTS --from "age:vault.age?identity=me.txt"
  keyway key add tank --mode AES-256-XTS --from exec:/usr/bin/pass -- show tank
  keyway key add disk0 --again`,
		Args: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at >= 0 {
				args = args[:at]
			}
			if len(args) == 2 && args[1] == "-" {
				return nil
			}
			return exactly("NAME")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[0]
			words := args[1:]
			given := cmd.Flags().Changed
			if from.again {
				for _, f := range []string{"mode", "type", "data-unit", "dun-bytes", "from", "file", "fd", "allow-weak"} {
					if given(f) {
						return misusef("key add: --again goes with a name alone: the daemon knows the rest")
					}
				}
				if len(words) > 0 {
					return misusef("key add: --again goes with a name alone: the daemon knows the rest")
				}
				return changed(c.client().ReadKey(cmd.Context(), r.Name))
			}
			source, err := from.source(cmd, words)
			if err != nil {
				return err
			}
			if r.Mode == "" {
				return misusef("key add: --mode is missing, such as AES-256-XTS")
			}
			if dataUnit != "" {
				n, err := size.Parse(dataUnit)
				if err != nil || n == 0 || n > 1<<20 {
					return misusef("key add: --data-unit %q is not a number of bytes such as 4096", dataUnit)
				}
				r.DataUnit = int(n)
			}
			if given("dun-bytes") && r.DUNBytes < 1 {
				return misusef("key add: --dun-bytes %d is not positive", r.DUNBytes)
			}
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			source = source.Abs(dir)
			r.Source, r.File = source.Name(), source.File()
			if r.File == "" && source.Fleeting() == "" && !source.Runs() {
				r.From = source.String()
			}
			ctx, stop := c.limited(cmd.Context())
			b, err := source.Read(ctx, sourceEnv())
			stop()
			if err != nil {
				return err
			}
			defer b.Wipe()
			return changed(addKey(cmd.Context(), c.client(), r, b))
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Mode, "mode", "", "encryption `mode`, as the kernel names it: AES-256-XTS, ...")
	f.StringVar(&r.Type, "type", "raw", "raw, or wrapped by the hardware of the emulated engines")
	f.StringVar(&dataUnit, "data-unit", "", "data unit size in `bytes` (default 4096)")
	f.IntVar(&r.DUNBytes, "dun-bytes", 0, "`bytes` of data unit numbers that are not zero (default 8)")
	f.StringVar(&from.from, "from", "", "`source` of the key, as above; what follows -- are the arguments of a program")
	f.StringVar(&from.file, "file", "", "`file` with the key")
	f.BoolVar(&r.Weak, "allow-weak", false, "take an XTS key with equal halves, for a dm-crypt disk that was written with one")
	f.IntVar(&from.fd, "fd", -1, "`descriptor` to read the key from")
	f.BoolVar(&from.again, "again", false, "read a missing key from its own source again")
	return c.withTimeout(cmd, giveUp)
}

// limited is ctx with the limit of --timeout, for what is done before the daemon is
// asked.
func (c *cli) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("not done within %v", c.timeout))
}

// source returns the one that is given; words are the arguments after the name.
func (f *keyAddFlags) source(cmd *cobra.Command, words []string) (*keysource.Source, error) {
	given := cmd.Flags().Changed
	dash := cmd.ArgsLenAtDash() < 0 && len(words) == 1
	n := 0
	for _, b := range []bool{given("from"), given("file"), given("fd"), dash} {
		if b {
			n++
		}
	}
	if n != 1 {
		return nil, misusef("key add: one of --from, --file, --fd and - says where the key comes from")
	}
	text := "-"
	switch {
	case given("from"):
		text = f.from
	case given("fd"):
		text = "fd:" + strconv.Itoa(f.fd)
	}
	if dash {
		words = nil
	}
	if given("file") {
		if len(words) > 0 {
			return nil, misusef("key add: surplus argument %q", words[0])
		}
		if f.file == "" {
			return nil, misusef("key add: --file is empty")
		}
		path, err := filepath.Abs(f.file)
		return keysource.File(path), err
	}
	s, err := keysource.Parse(text, words...)
	if err != nil {
		return nil, misuse{error: err, way: daemon.Hint(err)}
	}
	return s, nil
}

// sourceEnv is what this command reads sources with.
func sourceEnv() *keysource.Env {
	return &keysource.Env{
		Credentials: os.Getenv("CREDENTIALS_DIRECTORY"), Stdin: os.Stdin,
		Ask:  func(ctx context.Context, what string) (*secret.Buffer, error) { return readLine(ctx, os.Stdin, what) },
		Warn: func(text string) { warn("%s", text) },
	}
}

// sourcesHelp tells of each kind of source how it is written and what it is.
func sourcesHelp() string {
	var b strings.Builder
	for _, s := range keysource.Schemes() {
		b.WriteString("  " + s.Usage() + "\n      " + s.Summary + "\n")
	}
	return b.String()
}
