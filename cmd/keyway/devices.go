package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/daemon"
	"keyway/internal/size"
)

// changed prints the warnings that came with a success.
func changed(ch control.Changed, err error) error {
	for _, w := range ch.Warnings {
		warn("%s", w)
	}
	return err
}

func (c *cli) create() *cobra.Command {
	var table, backend, engine, bytes, uuid string
	var readOnly, immutable bool
	cmd := &cobra.Command{
		Use:   "create NAME (--table FILE|- | --backend URI [--size S] [--engine NAME[?k=v&...]])",
		Short: "Make a device from a table, or a leaf device on a backend",
		Example: `  keyway create disk0 --backend file:disk0.img --size 1G --engine cpu
  keyway create ram --backend mem:64M
  echo "0 2097152 linear disk0 0" | keyway create map --table -`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := control.Create{Name: args[0], UUID: uuid, ReadOnly: readOnly, Engine: engine, Immutable: immutable}
			given := cmd.Flags().Changed
			switch {
			case given("table") == given("backend"):
				return misusef("create: either --table or --backend")
			case given("table") && (given("size") || given("engine")):
				return misusef("create: --size and --engine go with --backend")
			case immutable && !given("table"):
				return misusef("create: --immutable goes with --table: a leaf device has no table that could change")
			}
			if !given("table") {
				dir, err := os.Getwd()
				if err != nil {
					return err
				}
				r.Backend = daemon.AbsURI(backend, dir)
				if given("size") {
					if r.Size, err = size.Parse(bytes); err == nil && r.Size == 0 {
						err = fmt.Errorf("size %q: a device needs a block at least", bytes)
					}
					if err != nil {
						return misusef("create: --size: %w", err)
					}
				}
				return changed(c.client().Create(cmd.Context(), r))
			}
			return c.withTable(cmd.Context(), args[0], table, func(text string) (control.Changed, error) {
				r.Table = text
				return c.client().Create(cmd.Context(), r)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&table, "table", "", "`file` with the table, - for standard input")
	f.StringVar(&backend, "backend", "", "`URI` of the backend, or a path that starts with / or ./")
	f.StringVar(&bytes, "size", "", "`size` of the device; an absent file is made, sparse")
	f.StringVar(&engine, "engine", "", "inline engine in front: none, cpu[?slots=N], or an emulated controller: ufs, cqhci or fmp[?OPTION=VALUE&...]")
	f.StringVar(&uuid, "uuid", "", "identifier, shown by info")
	f.BoolVar(&readOnly, "read-only", false, "refuse writes")
	f.BoolVar(&immutable, "immutable", false, "keep this table until the device is removed; no memory is then kept to take the place of its engines")
	return c.withTimeout(cmd, giveUp)
}

func (c *cli) load() *cobra.Command {
	var table string
	var r control.Load
	cmd := &cobra.Command{
		Use:   "load NAME --table FILE|-",
		Short: "Put a table into the inactive slot; resume makes it live",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withTable(cmd.Context(), args[0], table, func(text string) (control.Changed, error) {
				r.Table = text
				return c.client().Load(cmd.Context(), args[0], r)
			})
		},
	}
	cmd.Flags().StringVar(&table, "table", "", "`file` with the table, - for standard input")
	cmd.Flags().BoolVar(&r.ReadOnly, "read-only", false, "refuse writes")
	return c.withTimeout(cmd, giveUp)
}

func (c *cli) reload() *cobra.Command {
	var table string
	var r control.Load
	cmd := &cobra.Command{
		Use:   "reload NAME --table FILE|-",
		Short: "Load, suspend and resume as one step, back to the old table if any fails",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withTable(cmd.Context(), args[0], table, func(text string) (control.Changed, error) {
				r.Table = text
				return c.client().Reload(cmd.Context(), args[0], r)
			})
		},
	}
	cmd.Flags().StringVar(&table, "table", "", "`file` with the table, - for standard input")
	cmd.Flags().BoolVar(&r.ReadOnly, "read-only", false, "refuse writes")
	cmd.Flags().BoolVar(&r.NoFlush, "noflush", false, "do not make completed writes durable first")
	cmd.Flags().BoolVar(&r.Revoke, "revoke", false, "evict wrapped keys in use that the new table cannot serve, instead of refusing it")
	return c.withTimeout(cmd, giveUp)
}

// simple is a command on one device without options of its own.
func (c *cli) simple(use, short string, f func(ctx context.Context, name string) (control.Changed, error)) *cobra.Command {
	return c.withTimeout(&cobra.Command{
		Use: use + " NAME", Short: short, Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error { return changed(f(cmd.Context(), args[0])) },
	}, giveUp)
}

func (c *cli) clear() *cobra.Command {
	return c.simple("clear", "Empty the inactive slot", func(ctx context.Context, name string) (control.Changed, error) {
		return c.client().Clear(ctx, name)
	})
}

func (c *cli) resume() *cobra.Command {
	return c.simple("resume", "Make an inactive table live and let requests in", func(ctx context.Context, name string) (control.Changed, error) {
		return c.client().Resume(ctx, name)
	})
}

func (c *cli) suspend() *cobra.Command {
	var r control.Suspend
	cmd := &cobra.Command{
		Use:   "suspend NAME",
		Short: "Hold new requests and wait for those under way",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changed(c.client().Suspend(cmd.Context(), args[0], r))
		},
	}
	cmd.Flags().BoolVar(&r.NoFlush, "noflush", false, "do not make completed writes durable")
	return c.withTimeout(cmd, giveUp)
}

func (c *cli) remove() *cobra.Command {
	var r control.Remove
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a device away",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changed(c.client().Remove(cmd.Context(), args[0], r))
		},
	}
	cmd.Flags().BoolVar(&r.Force, "force", false, "first replace the table by one of errors, so that everything beneath is released")
	cmd.Flags().BoolVar(&r.Deferred, "deferred", false, "if it is open, remove it at the last close")
	return c.withTimeout(cmd, giveUp)
}

func (c *cli) rename() *cobra.Command {
	return c.withTimeout(&cobra.Command{
		Use:   "rename NAME NEW",
		Short: "Give a device another name, also in the tables and exports that use it",
		Args:  exactly("NAME", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changed(c.client().Rename(cmd.Context(), args[0], args[1]))
		},
	}, giveUp)
}

func (c *cli) message() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use:   "message NAME SECTOR WORD...",
		Short: "Send words to a target or an engine, or to the device itself if the first begins with @",
		Long: `Send words to the target whose row holds the sector, or to the engine of a leaf
device, or, if the first begins with @, to the device itself. What they change is
lost with the table; of a leaf, with the daemon.

Engines know:
  status                                  keyslots, counts and faults
  reset                                   lose all keys as in a reset of the
                                          controller, and program them again
  fail program|evict|crypt COUNT|RATE     make the next COUNT calls fail (3; 0: none),
                                          or a part of all (0.01; 1.0: all); of the
                                          emulated engines only`,
		Example: `  keyway message phone 0 reset
  keyway message phone 0 fail evict 1
  keyway remove disk0 --deferred
  keyway message disk0 0 @cancel_deferred_remove`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 3 {
				return exactly("NAME", "SECTOR", "WORD")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			sector, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil || sector < 0 {
				return misusef("message: sector %q is not a number", args[1])
			}
			t, err := c.client().Message(cmd.Context(), args[0], control.Message{Sector: sector, Words: args[2:]})
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(t)
			}
			fmt.Print(t.Text)
			return nil
		},
	})
}

func (c *cli) wait() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait NAME [EVENT]",
		Short: "Wait until the device's number of events is not EVENT (default: what it is now)",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exactly("NAME")(cmd, args)
			}
			return atMost("NAME", "EVENT")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var from uint64
			var err error
			if len(args) == 2 {
				if from, err = strconv.ParseUint(args[1], 10, 64); err != nil {
					return misusef("wait: event %q is not a number", args[1])
				}
			} else {
				d, err := c.client().Device(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				from = d.Event
			}
			n, err := c.client().Wait(cmd.Context(), args[0], from)
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(control.EventNumber{Event: n})
			}
			fmt.Println(n)
			return nil
		},
	}
	return c.withTimeout(c.withJSON(cmd), "give up after this `duration` (default: wait)")
}
