package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keyway/control"
)

func (c *cli) key() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "Keys: add, list, show, evict; keys wrapped by hardware: generate, import, prepare", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misusef("key: a command is missing: add, list, show, evict, generate, import or prepare")
		},
	}
	cmd.AddCommand(c.keyAdd(), c.keyList(), c.keyShow(), c.keyEvict(), c.keyGenerate(), c.keyImport(), c.keyPrepare())
	return cmd
}

func (c *cli) keyList() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "list", Short: "List the keys, with how many requests use each and who has served them", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := c.client().Keys(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(keys)
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tMODE\tTYPE\tDATA UNIT\tDUN BYTES\tSTATE\tUSERS\tREQUESTS\tNATIVE\tFALLBACK\tSOURCE")
			for _, k := range keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%s\n", k.Name, k.Mode, k.Type, k.DataUnit, k.DUNBytes,
					k.State, k.Users, k.InUse, k.Native, k.Fallback, k.Source)
			}
			w.Flush()
			for _, k := range keys {
				if k.Problem != "" {
					warn("key %q is %s: %s", k.Name, k.State, k.Problem)
				}
			}
			return nil
		},
	})
}

func (c *cli) keyShow() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "show NAME", Short: "Describe a key: what it is for, and what has been done with it", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := c.client().Key(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(k)
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 1, ' ', 0)
			defer w.Flush()
			line := func(name, format string, args ...any) {
				fmt.Fprintf(w, "%s:\t%s\n", name, fmt.Sprintf(format, args...))
			}
			line("Name", "%s", k.Name)
			line("Mode", "%s, %s", k.Mode, k.Type)
			line("Data unit", "%d bytes, numbers of %d bytes", k.DataUnit, k.DUNBytes)
			line("Source", "%s", k.Source)
			if k.Config {
				line("Declared by", "the configuration")
			}
			line("State", "%s", k.State)
			if k.Problem != "" {
				line("Problem", "%s", strings.ReplaceAll(k.Problem, "\n", "; "))
			}
			line("Users", "%s", counted(int64(k.Users), "table row"))
			line("In use", "by %s", counted(k.InUse, "request"))
			line("Served", "%s by engines, %d by the fallback", counted(int64(k.Native), "request"), k.Fallback)
			line("Keyslots", "%s, %s, %s", counted(int64(k.Programs), "program"), counted(int64(k.Evictions), "eviction"), counted(int64(k.Waits), "wait"))
			return nil
		},
	})
}

func (c *cli) keyEvict() *cobra.Command {
	var r control.EvictKey
	cmd := &cobra.Command{
		Use:   "evict NAME",
		Short: "Make a key gone from everywhere, and print the receipt",
		Long: `Make a key gone: new requests with it fail at once, those under way are waited
for, then it is wiped from every engine and cipher that ever held it and from
memory. The receipt names every such place. Where the time is over first, the key
stays listed, unusable, and evict may be called again. The file that it came from
is left alone.

With --if-idle a key that a table or a request uses is refused, and remains as
usable as it was. With --force no request is waited for, only engines at work:
requests that wait for a device, or at a suspended one, will fail.`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.IfIdle && r.Force {
				return misusef("key evict: --if-idle does not go with --force: the one wants no request to fail, the other does not mind")
			}
			e, err := c.client().EvictKey(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			for _, w := range e.Warnings {
				warn("%s", w)
			}
			if c.json {
				err = printJSON(e)
			} else {
				printReceipt(e)
			}
			if e.Error != "" {
				return &control.Error{Message: e.Error, Hint: e.Hint}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&r.IfIdle, "if-idle", false, "refuse if a table or a request uses the key")
	cmd.Flags().BoolVar(&r.Force, "force", false, "do not wait for requests, and forget the key even if some place does not confirm that it is gone")
	return c.withTimeout(c.withJSON(cmd), "wait no longer than this `duration` for requests that use the key (default: wait)")
}

func printReceipt(e control.Eviction) {
	fmt.Printf("key %q:\n", e.Key)
	for _, p := range e.Places {
		state := "gone"
		if !p.Gone {
			state = "NOT GONE: " + p.Error
		}
		fmt.Printf("  %s: %s\n", strings.TrimSuffix(p.Holder+", "+p.Detail, ", "), state)
	}
	if len(e.Devices) > 0 {
		fmt.Printf("  cannot work without it: %s\n", strings.Join(e.Devices, ", "))
	}
}
