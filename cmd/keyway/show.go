package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/plural"
	"keyway/internal/size"
)

func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// texts are table and status: of one device, or of all with the name in front.
func (c *cli) texts(use, short string, get func(cmd *cobra.Command, name string, inactive bool) (string, error)) *cobra.Command {
	var inactive bool
	cmd := &cobra.Command{
		Use: use + " [NAME]", Short: short, Args: atMost("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			names := args
			if len(args) == 0 {
				all, err := c.client().Devices(cmd.Context())
				if err != nil {
					return err
				}
				for _, d := range all {
					names = append(names, d.Name)
				}
			}
			type row struct {
				Name string `json:"name"`
				Text string `json:"text"`
			}
			rows := []row{}
			for _, name := range names {
				text, err := get(cmd, name, inactive)
				if err != nil {
					return err
				}
				rows = append(rows, row{name, text})
			}
			if c.json && len(args) == 1 {
				return printJSON(rows[0])
			}
			if c.json {
				return printJSON(rows)
			}
			for _, r := range rows {
				if len(args) == 1 {
					fmt.Print(r.Text)
					continue
				}
				for line := range strings.Lines(r.Text) {
					fmt.Printf("%s: %s", r.Name, line)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&inactive, "inactive", false, "of the inactive table")
	return c.withJSON(cmd)
}

func (c *cli) table() *cobra.Command {
	return c.texts("table", "Print a table: what can be loaded again; keys are references", func(cmd *cobra.Command, name string, inactive bool) (string, error) {
		return c.client().Table(cmd.Context(), name, inactive)
	})
}

func (c *cli) status() *cobra.Command {
	return c.texts("status", "Print the state of each row", func(cmd *cobra.Command, name string, inactive bool) (string, error) {
		return c.client().Status(cmd.Context(), name, inactive)
	})
}

// devices returns the one that args names, or all.
func (c *cli) devices(cmd *cobra.Command, args []string) ([]control.Device, error) {
	if len(args) == 0 {
		return c.client().Devices(cmd.Context())
	}
	d, err := c.client().Device(cmd.Context(), args[0])
	return []control.Device{d}, err
}

func (c *cli) info() *cobra.Command {
	var daemon bool
	cmd := &cobra.Command{
		Use: "info [NAME|--daemon]", Short: "Describe a device, or all, or the daemon", Args: atMost("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if daemon && len(args) > 0 {
				return misusef("info: --daemon and a device are too much at once")
			}
			if daemon {
				return c.daemonInfo(cmd)
			}
			all, err := c.devices(cmd, args)
			switch {
			case err != nil:
				return err
			case c.json && len(args) == 1:
				return printJSON(all[0])
			case c.json:
				return printJSON(all)
			}
			for i, d := range all {
				if i > 0 {
					fmt.Println()
				}
				printInfo(d)
			}
			return nil
		},
	}
	// The live table is what info describes; the flag is dmsetup's.
	cmd.Flags().BoolVar(&daemon, "daemon", false, "describe the daemon: its version, and the memory that it keeps keys in")
	cmd.Flags().Bool("inactive", false, "accepted for likeness with dmsetup: both tables are always told")
	return c.withJSON(cmd)
}

func printInfo(d control.Device) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 1, ' ', 0)
	defer w.Flush()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s:\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("Name", "%s", d.Name)
	state := strings.ToUpper(d.State)
	if d.ReadOnly {
		state += " (READ-ONLY)"
	}
	if d.Immutable {
		state += " (IMMUTABLE)"
	}
	if d.DeferredRemove {
		state += " (DEFERRED REMOVE)"
	}
	line("State", "%s", state)
	if d.Problem != "" {
		line("Problem", "%s", strings.ReplaceAll(d.Problem, "\n", "; "))
	}
	var tables []string
	if d.Live {
		tables = append(tables, "LIVE")
	}
	if d.Inactive {
		tables = append(tables, "INACTIVE")
	}
	if tables == nil {
		tables = []string{"None"}
	}
	line("Tables present", "%s", strings.Join(tables, " & "))
	line("Open count", "%d", d.Open)
	if len(d.Holders) > 0 {
		line("Open by", "%s", strings.Join(d.Holders, ", "))
	}
	line("Event number", "%d", d.Event)
	line("Number of targets", "%d", d.Rows)
	line("Size", "%s (%d bytes)", size.Format(d.Size), d.Size)
	if d.LogicalBlock > 0 {
		line("Block size", "%d bytes (physical %d)", d.LogicalBlock, d.PhysicalBlock)
	}
	if d.InFlight+d.Waiting > 0 {
		line("Requests", "%d in flight, %d waiting", d.InFlight, d.Waiting)
	}
	if s := d.Served; s != nil && s.Native+s.Fallback > 0 {
		line("With a context", "%d served by engines beneath, %d by the fallback", s.Native, s.Fallback)
	}
	if d.Backend != "" {
		line("Backend", "%s", d.Backend)
		line("Engine", "%s", d.Engine)
	}
	if d.Config {
		line("Declared by", "the configuration")
	}
	if d.UUID != "" {
		line("UUID", "%s", d.UUID)
	}
}

func (c *cli) deps() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "deps [NAME]", Short: "Print what devices stand on", Args: atMost("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := c.devices(cmd, args)
			if err != nil {
				return err
			}
			type deps struct {
				Name  string        `json:"name"`
				Under []control.Dep `json:"under"`
			}
			list := []deps{}
			for _, d := range all {
				list = append(list, deps{d.Name, append([]control.Dep{}, d.Under...)})
			}
			switch {
			case c.json && len(args) == 1:
				return printJSON(list[0])
			case c.json:
				return printJSON(list)
			}
			for _, d := range list {
				prefix := ""
				if len(args) == 0 {
					prefix = d.Name + ": "
				}
				fmt.Printf("%s%d dependencies  :", prefix, len(d.Under))
				for _, u := range d.Under {
					fmt.Printf(" (%s)", u.Name)
				}
				fmt.Println()
			}
			return nil
		},
	})
}

func (c *cli) ls() *cobra.Command {
	var tree bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the devices", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().Devices(cmd.Context())
			switch {
			case err != nil:
				return err
			case c.json && tree:
				return printJSON(forest(all))
			case c.json:
				return printJSON(all)
			case tree:
				for _, n := range forest(all) {
					n.print("", "")
				}
				return nil
			}
			for _, d := range all {
				if d.State == "active" {
					fmt.Println(d.Name)
				} else {
					fmt.Printf("%s\t(%s)\n", d.Name, d.State)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&tree, "tree", false, "with what each stands on, those that nobody stands on first")
	return c.withJSON(cmd)
}

// A node is a device in a tree, with what it stands on.
type node struct {
	Name  string `json:"name"`
	State string `json:"state,omitempty"`
	Under []node `json:"under,omitempty"`
}

func forest(all []control.Device) []node {
	byName := map[string]control.Device{}
	stoodOn := map[string]bool{}
	for _, d := range all {
		byName[d.Name] = d
		for _, u := range d.Under {
			if u.Device {
				stoodOn[u.Name] = true
			}
		}
	}
	var grow func(name string, path []string) node
	grow = func(name string, path []string) node {
		d := byName[name]
		n := node{Name: name, State: d.State}
		for _, u := range d.Under {
			if u.Device && !slices.Contains(path, u.Name) {
				n.Under = append(n.Under, grow(u.Name, append(path, u.Name)))
			} else if !u.Device {
				n.Under = append(n.Under, node{Name: u.Name})
			}
		}
		return n
	}
	list := []node{}
	for _, d := range all {
		if !stoodOn[d.Name] {
			list = append(list, grow(d.Name, []string{d.Name}))
		}
	}
	return list
}

func (n node) print(first, rest string) {
	state := ""
	if n.State != "" && n.State != "active" {
		state = " (" + n.State + ")"
	}
	fmt.Printf("%s%s%s\n", first, n.Name, state)
	for i, u := range n.Under {
		if i < len(n.Under)-1 {
			u.print(rest+" ├─", rest+" │ ")
		} else {
			u.print(rest+" └─", rest+"   ")
		}
	}
}

func (c *cli) crypto() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "crypto NAME", Short: "Print which encryption engines serve and which keys are in their slots", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := c.client().Crypto(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(x)
			}
			printCrypto(x)
			return nil
		},
	})
}

func printCrypto(x control.Crypto) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "MODE\tKEY TYPE\tDATA UNITS\tDUN BYTES\tSERVED BY")
	for _, part := range []struct {
		by   string
		list []control.Config
	}{{"engine", x.Native}, {"fallback", without(x.Software, x.Native)}} {
		for _, l := range folded(part.list) {
			fmt.Fprintf(w, "%s\t%s\n", l, part.by)
		}
	}
	w.Flush()
	w = tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nREQUESTS WITH A CONTEXT\tBY ENGINES BENEATH\tBY THE FALLBACK")
	for _, s := range x.Served {
		fmt.Fprintf(w, "%s\t%d\t%d\n", s.Device, s.Native, s.Fallback)
	}
	w.Flush()
	for _, e := range x.Engines {
		fmt.Printf("\n%s: %s, %d with a key, %d busy", e.Engine, plural.Of(e.Slots, "keyslot"), len(e.Keys), e.Busy)
		if e.Quarantined > 0 {
			fmt.Printf(", %d quarantined", e.Quarantined)
		}
		fmt.Printf("; %d programs, %d evictions, %d failures, %d waits, %d resets\n", e.Programs, e.Evictions, e.Failures, e.Waits, e.Resets)
		for _, k := range e.Keys {
			fmt.Printf("  keyslot %d: key %q (id %d), %s", k.Slot, k.Key, k.ID, plural.Of(k.Requests, "request"))
			if k.Quarantined != "" {
				fmt.Printf(", quarantined: %s", k.Quarantined)
			}
			fmt.Println()
		}
	}
}

// without returns what is in a and not in b.
func without(a, b []control.Config) (rest []control.Config) {
	for _, c := range a {
		if !slices.Contains(b, c) {
			rest = append(rest, c)
		}
	}
	return rest
}

// folded makes one line of configs that differ in the data unit only. The
// numbering of dm-crypt goes with blk-crypto's and is not told apart.
func folded(list []control.Config) []string {
	var lines []string
	units := map[string][]string{}
	for _, c := range list {
		if c.Numbering != "" {
			continue
		}
		k := fmt.Sprintf("%s\t%s\t%%s\t%d", c.Mode, c.KeyType, c.DUNBytes)
		if units[k] == nil {
			lines = append(lines, k)
		}
		units[k] = append(units[k], fmt.Sprint(c.DataUnit))
	}
	for i, k := range lines {
		lines[i] = fmt.Sprintf(k, strings.Join(units[k], " "))
	}
	return lines
}
