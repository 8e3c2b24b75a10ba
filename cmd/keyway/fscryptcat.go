package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"keyway/control"
)

func (c *cli) fscryptCat() *cobra.Command {
	var ff fsFlags
	cmd := &cobra.Command{
		Use:   "cat VOLUME PATH...",
		Short: "Write the contents of files to standard output",
		Long: `Write the contents of files to standard output, one after the other. Symbolic links
are followed within the file system. A file that cannot be read is named, the next ones
follow, and the exit status is 1: it is never 0 when a byte is missing.

` + volumeHelpText,
		Example: `  keyway fscrypt cat phone.img /media/1.jpg --key ./user.key > 1.jpg
  keyway fscrypt cat userdata notes/a notes/b --key ./user.key --key 0123456789abcdef=./old.key`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exactly("VOLUME", "PATH")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return toStdout(func(write func([]byte) error) (err error) {
				v, err := c.openFS(cmd, &ff, args[0])
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, v.close(cmd.Context())) }()
				var t troubled
				ctx, stop := c.limited(cmd.Context())
				defer stop()
				_, err = v.cat(ctx, control.Fscrypt{Paths: paths(args[1:])}, control.FscryptSink{Data: write, Problem: t.problem})
				if err != nil {
					return cause(ctx, err)
				}
				return t.err()
			})
		},
	}
	ff.add(cmd.Flags(), "key")
	cmd.ValidArgsFunction = c.completeVolume(&ff, 0)
	return c.withTimeout(cmd, giveUpReading)
}

// cause is err, or why ctx ended.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// toStdout runs f, which writes to standard output. If nobody reads that any more, f
// gets an error from write, gives everything back, and the process ends as others do
// then: by SIGPIPE.
func toStdout(f func(write func([]byte) error) error) error {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // so that it ends nothing yet
	out := bufio.NewWriterSize(os.Stdout, 256<<10)
	err := f(func(p []byte) error {
		_, err := out.Write(p)
		return err
	})
	if e := out.Flush(); err == nil || errors.Is(err, unix.EPIPE) {
		err = errors.Join(err, e)
	}
	signal.Reset(syscall.SIGPIPE)
	if errors.Is(err, unix.EPIPE) {
		os.Stdout.Write([]byte{0}) // the runtime ends the process by the signal
		return silent{err}
	}
	return err
}
