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
	var config, state, level, memory string
	cmd := &cobra.Command{
		Use:   "serve [--config FILE] [--state DIR]",
		Short: "Run the daemon, in the foreground",
		Long: `Run the daemon, in the foreground.

Without --config it makes, once, and serves one encrypted disk, and prints how to
attach it. SIGTERM and SIGINT drain: clients' requests under way are answered,
devices flushed, keys wiped; a second signal ends at once. Under systemd it tells
when it is ready and takes sockets: the one named "control", and those whose
address an export has.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runServe(config, state, level, memory) },
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration `file` (TOML)")
	cmd.Flags().StringVar(&state, "state", "", "state `directory` (default $XDG_STATE_HOME/keyway, for root /var/lib/keyway)")
	cmd.Flags().StringVar(&level, "log-level", "info", "least `level` of the log: debug, info, warn, error")
	cmd.Flags().StringVar(&memory, "key-memory", "", "`where` keys are kept: best (locked, and hidden if the kernel can), locked, or insecure: what cannot be locked may be swapped (default best)")
	return cmd
}

func (c *cli) runServe(config, state, level, memory string) error {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return misusef("--log-level %q is not debug, info, warn or error", level)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: lv}))
	o := kw.Options{Version: programVersion(), Log: log}
	if config != "" {
		var err error
		if o.Config, err = kw.ReadConfig(config); err != nil {
			return configMisuse(err)
		}
	}
	if err := kw.SetKeyMemory(memory, o.Config); err != nil {
		return misuse{error: fmt.Errorf("--key-memory: %w", err)}
	}
	if err := c.places(&o, state); err != nil {
		return err
	}
	if config == "" {
		o.Config = kw.ZeroConfig(o.State, o.Socket)
	}
	var err error
	if o.Listeners, err = passedListeners(); err != nil {
		return err
	}

	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() {
		s := <-signals
		log.Info("ending", "signal", s.String())
		cancel(fmt.Errorf("signal %v", s))
		s = <-signals
		log.Warn("ending at once", "signal", s.String())
		os.Exit(exitFailed)
	}()

	d, err := kw.Start(ctx, o)
	if err != nil {
		return err
	}
	log.Info("ready", "control", o.Socket, "state", o.State, "version", o.Version)
	if config == "" {
		program := "keyway"
		if c.given {
			program = "keyway --socket " + o.Socket
		}
		fmt.Print(kw.ZeroHelp(o.Config, program))
	}
	notify(log, daemon.SdNotifyReady)
	<-ctx.Done()
	notify(log, daemon.SdNotifyStopping)
	limit, stop := context.WithTimeoutCause(context.Background(), shutdownLimit, fmt.Errorf("not done within %v", shutdownLimit))
	defer stop()
	return d.Close(limit)
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
