// Command keyway serves block devices with inline encryption, and controls the
// daemon that does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/daemon"
	"keyway/internal/keysource"
	"keyway/internal/nearest"
	"keyway/internal/secret"
)

// version is set by the linker.
var version = ""

func main() { os.Exit(run(os.Args[1:])) }

// Exit statuses.
const (
	exitFailed = 1
	exitMisuse = 2
)

func run(args []string) int {
	// Keys pass through clients as well. Without this nothing goes on: only a
	// sandbox can forbid it, and that is put right outside.
	if err := secret.Seclude(); err != nil {
		fmt.Fprintf(os.Stderr, "keyway: error: %v\n", err)
		return exitFailed
	}
	if len(args) > 0 && args[0] == keysource.HelperCommand {
		return keysource.HelperMain(args[1:])
	}
	root := newRoot()
	root.SetArgs(args)
	ctx := context.Background()
	if !isServe(args) { // serve has its own way with signals
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
	}
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	return fail(cmd, err)
}

func isServe(args []string) bool {
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			return a == "serve"
		}
	}
	return false
}

// fail prints err and returns the exit status that belongs to it.
func fail(cmd *cobra.Command, err error) int {
	if _, printed := errors.AsType[silent](err); printed {
		return exitFailed
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(os.Stderr, "keyway: error: %s\n", line)
	}
	way := daemon.Hint(err)
	if e, ok := errors.AsType[*control.Error](err); ok {
		way = e.Hint
	}
	m, misused := errors.AsType[misuse](err)
	if misused && way == "" {
		way = m.way
	}
	if way == "" && misused {
		way = fmt.Sprintf("%q shows how to use it", cmd.CommandPath()+" --help")
	}
	if way != "" {
		fmt.Fprintf(os.Stderr, "keyway: hint: %s\n", way)
	}
	if misused {
		return exitMisuse
	}
	return exitFailed
}

// misuse is an error in how the command was called.
type misuse struct {
	error
	way string
}

func (m misuse) Unwrap() error { return m.error }

func misusef(format string, args ...any) error { return misuse{error: fmt.Errorf(format, args...)} }

// silent is a failure that has been printed.
type silent struct{ error }

func warn(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "keyway: warning: %s\n", fmt.Sprintf(format, args...))
}

// A cli is what all commands share.
type cli struct {
	socket  string
	given   bool // socket was given with --socket
	json    bool
	timeout time.Duration
}

func (c *cli) client() *control.Client {
	return &control.Client{Socket: c.socket, Timeout: c.timeout}
}

func newRoot() *cobra.Command {
	c := &cli{}
	root := &cobra.Command{
		Use:   "keyway",
		Short: "Inline encryption for block devices, in user space",
		Long: `Keyway is what Linux's blk-crypto, keyslot managers and device-mapper do, in
user space: devices on files or memory, with or without an inline engine, mapped
by the kernel's table lines, encrypted with keys that can be evicted for certain,
served over NBD.

"keyway serve" without more serves one encrypted disk and prints how to attach it.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse{error: err} })
	root.PersistentFlags().StringVar(&c.socket, "socket", control.DefaultSocket(), "control socket of the daemon")
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) { c.given = cmd.Flags().Changed("socket") }
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return misusef("there is no command %q", strings.Join(args, " "))
			}
			return found.Help()
		},
	})
	root.AddCommand(
		c.serve(), c.create(), c.load(), c.clear(), c.suspend(), c.resume(), c.reload(), c.remove(), c.rename(),
		c.table(), c.status(), c.info(), c.deps(), c.ls(), c.message(), c.wait(), c.events(), c.crypto(), c.explain(), c.targets(),
		c.key(), c.export(), c.luks(), c.fscrypt(), c.bench(), c.slots(), completion(), c.version(),
	)
	return root
}

// noSuchCommand refuses arguments of a command that only has others beneath.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := misuse{error: fmt.Errorf("%s: there is no command %q", cmd.CommandPath(), args[0])}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	if near := nearest.Of(args[0], names); near != "" {
		err.way = fmt.Sprintf("did you mean %q?", near)
	}
	return err
}

// exactly names the arguments that a command takes.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return misusef("%s: %s is missing", cmd.CommandPath(), names[len(args)])
		}
		if len(args) > len(names) {
			return misusef("%s: surplus argument %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// atMost is exactly for arguments that may all be left out.
func atMost(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return misusef("%s: surplus argument %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// withJSON adds --json.
func (c *cli) withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	return cmd
}

// withTimeout adds --timeout.
func (c *cli) withTimeout(cmd *cobra.Command, what string) *cobra.Command {
	cmd.Flags().DurationVar(&c.timeout, "timeout", 0, what)
	pre := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("timeout") && c.timeout <= 0 {
			return misusef("--timeout %v is not positive", c.timeout)
		}
		if pre != nil {
			return pre(cmd, args)
		}
		return nil
	}
	return cmd
}

const giveUp = "give up after this `duration`, with everything as before (default: wait)"

func programVersion() string {
	if version != "" {
		return version
	}
	if i, ok := debug.ReadBuildInfo(); ok && i.Main.Version != "" {
		return i.Main.Version
	}
	return "unknown"
}
