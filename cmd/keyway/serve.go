package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	kw "keyway/internal/daemon"
)

func (c *cli) serve() *cobra.Command {
	var s serving
	cmd := &cobra.Command{
		Use:   "serve [--config FILE] [--state DIR] | serve IMAGE",
		Short: "Run the daemon, in the foreground; or serve the data of a LUKS image",
		Long: `Run the daemon, in the foreground.

Without --config it makes, once, and serves one encrypted disk, and prints how to
attach it. SIGTERM and SIGINT drain: clients' requests under way are answered,
devices flushed, keys wiped; a second signal ends at once. Under systemd it tells
when it is ready and takes sockets: the one named "control", and those whose
address an export has.

With IMAGE, a file or block device in the format LUKS1 or LUKS2, it asks for the
passphrase, serves the decrypted data alone, over NBD, and prints how to attach it.
Nothing is kept of that when it ends, and nothing is written to the image but what
clients write.`,
		Example: `  keyway serve
  keyway serve --config keyway.toml
  keyway serve vault.img --read-only
  keyway serve data.img --header data.header --key-file data.key --nbd tcp:127.0.0.1:10809`,
		Args: atMost("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if s.image = args[0]; s.image == "" {
					return misusef("serve: the name of the image is empty")
				}
			}
			if err := s.check(cmd); err != nil {
				return err
			}
			return c.runServe(s)
		},
	}
	s.volume.add(cmd.Flags())
	cmd.Flags().StringVar(&s.nbd, "nbd", "", "where to listen for the clients of IMAGE (`URI`, default a socket beside that of control)")
	cmd.Flags().BoolVar(&s.readOnly, "read-only", false, "refuse writes to IMAGE")
	cmd.Flags().StringVar(&s.config, "config", "", "configuration `file` (TOML)")
	cmd.Flags().StringVar(&s.state, "state", "", "state `directory` (default $XDG_STATE_HOME/keyway, for root /var/lib/keyway)")
	cmd.Flags().StringVar(&s.trace, "trace", "", "write down what keyslots are used for, in a new `file` that \"keyway slots\" reads")
	cmd.Flags().StringVar(&s.level, "log-level", "info", "least `level` of the log: debug, info, warn, error")
	cmd.Flags().StringVar(&s.memory, "key-memory", "", "`where` keys are kept: best (locked, and hidden if the kernel can), locked, or insecure: what cannot be locked may be swapped (default best)")
	return cmd
}

// serving is what serve was asked for: a daemon, or the data of an image alone.
type serving struct {
	config, state, level, memory string
	trace                        string // file; "": none

	image    string // "": none
	volume   volumeFlags
	nbd      string
	readOnly bool
}

// check refuses what does not go together.
func (s *serving) check(cmd *cobra.Command) (err error) {
	if s.image == "" {
		for _, name := range []string{"header", "key-file", "key-fd", "keyfile-offset", "keyfile-size", "key-slot", "header-policy", "exact-size", "nbd", "read-only"} {
			if cmd.Flags().Changed(name) {
				return misusef("serve: --%s belongs to an image, and none is named", name)
			}
		}
		return nil
	}
	switch {
	case s.config != "":
		return misusef("serve: with an image there is no --config: a daemon that runs gets the image by \"keyway luks open\"")
	case s.state != "":
		return misusef("serve: with an image there is no --state: nothing is kept of serving it")
	}
	if err := s.volume.check(cmd); err != nil {
		return err
	}
	if s.nbd == "" {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if s.nbd, err = kw.AbsNBD(s.nbd, dir); err != nil {
		return misusef("serve: --nbd: %w", err)
	}
	return nil
}

func (c *cli) runServe(s serving) (err error) {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(s.level)); err != nil {
		return misusef("--log-level %q is not debug, info, warn or error", s.level)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: lv}))
	o := kw.Options{Version: programVersion(), Log: log}
	if s.config != "" {
		var err error
		if o.Config, err = kw.ReadConfig(s.config); err != nil {
			return configMisuse(err)
		}
	}
	if err := kw.SetKeyMemory(s.memory, o.Config); err != nil {
		return misuse{error: fmt.Errorf("--key-memory: %w", err)}
	}
	ctx, cancel := endBySignal(log)
	defer cancel(nil)

	var v *volume
	if s.image != "" {
		var err error
		if v, err = s.volume.open(ctx, s.image, s.readOnly); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err
		}
		defer v.close()
		if s.state, err = imageState(c.socket); err != nil {
			return err
		}
		defer os.RemoveAll(s.state)
		o.Config = &kw.Config{}
	}
	if err := c.places(&o, s.state); err != nil {
		return err
	}
	if o.Config == nil {
		o.Config = kw.ZeroConfig(o.State, o.Socket)
	}
	if o.Listeners, err = passedListeners(); err != nil {
		return err
	}
	if s.trace != "" {
		if o.Trace, err = newTrace(s.trace, func(err error) { log.Error("trace", "err", err) }); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Trace.Close()) }()
	}
	d, err := kw.Start(ctx, o)
	if err != nil {
		if o.Trace != nil {
			o.Trace.Discard() // there is nothing in it, and the next start wants the name
		}
		return imageHint(err, v)
	}
	err = c.ready(ctx, log, o, s, v)
	if err == nil {
		<-ctx.Done()
	}
	notify(log, daemon.SdNotifyStopping)
	limit, stop := context.WithTimeoutCause(context.Background(), shutdownLimit, fmt.Errorf("not done within %v", shutdownLimit))
	defer stop()
	return errors.Join(err, d.Close(limit))
}

// endBySignal returns a context that the first signal ends; the second ends the
// process.
func endBySignal(log *slog.Logger) (context.Context, context.CancelCauseFunc) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		s := <-signals
		log.Info("ending", "signal", s.String())
		cancel(fmt.Errorf("signal %v", s))
		s = <-signals
		log.Warn("ending at once", "signal", s.String())
		os.Exit(exitFailed)
	}()
	return ctx, cancel
}

// ready makes the daemon serve the volume, if there is one, and says what is served.
func (c *cli) ready(ctx context.Context, log *slog.Logger, o kw.Options, s serving, v *volume) error {
	help := ""
	switch {
	case v != nil:
		socket := o.Socket
		if l := o.Listeners["control"]; l != nil {
			socket = l.Addr().String()
		}
		var err error
		if help, err = c.serveVolume(ctx, v, socket, s.nbd, s.readOnly); err != nil {
			return err
		}
	case s.config == "":
		program := "keyway"
		if c.given {
			program = "keyway --socket " + o.Socket
		}
		help = kw.ZeroHelp(o.Config, program)
	}
	log.Info("ready", "control", o.Socket, "state", o.State, "version", o.Version)
	fmt.Print(help)
	notify(log, daemon.SdNotifyReady)
	return nil
}

// shutdownLimit bounds the whole of draining, over the exports' own limit.
const shutdownLimit = time.Minute

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("service manager", "err", err)
	}
}

// configMisuse gives a wrong configuration the status of misuse, unlike a file
// that cannot be read.
func configMisuse(err error) error {
	if _, io := errors.AsType[*fs.PathError](err); io {
		return err
	}
	return misuse{error: err, way: "nothing was started or changed"}
}

// places finds the state directory and the control socket: of the command
// line, else of the configuration, else the usual ones.
func (c *cli) places(o *kw.Options, state string) (err error) {
	if o.Socket = c.socket; o.Config != nil && o.Config.Socket != "" && !c.given {
		o.Socket = o.Config.Socket
	}
	if o.Socket == "" {
		return misusef("no control socket: set --socket, $KEYWAY_SOCKET or $XDG_RUNTIME_DIR")
	}
	o.State = state
	if o.State == "" && o.Config != nil {
		o.State = o.Config.State
	}
	if o.State == "" {
		if o.State, err = defaultState(); err != nil {
			return err
		}
	}
	if o.State, err = filepath.Abs(o.State); err != nil {
		return err
	}
	o.Socket, err = filepath.Abs(o.Socket)
	return err
}

func defaultState() (string, error) {
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "keyway"), nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/keyway", nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", misusef("no state directory: set --state, $XDG_STATE_HOME or $HOME")
	}
	return filepath.Join(home, ".local", "state", "keyway"), nil
}

// passedListeners takes the sockets of a service manager by their names, and
// those without a name of ours by their address.
func passedListeners() (map[string]net.Listener, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets of the service manager: %w", err)
	}
	all := map[string]net.Listener{}
	for name, ls := range named {
		for _, l := range ls {
			if l == nil {
				return nil, fmt.Errorf("socket %q of the service manager is not a stream socket", name)
			}
			key := l.Addr().Network() + ":" + l.Addr().String()
			if name == "control" {
				key = name
			}
			all[key] = l
		}
	}
	return all, nil
}
