package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
)

// change opens a header, does one thing to it and closes it.
func (e *editFlags) change(image string, do func(ed *luksEdit) error) error {
	ed, err := e.open(image)
	if err != nil {
		return err
	}
	defer ed.close()
	if err := do(ed); err != nil {
		return hintKey(fmt.Errorf("%s: %w", ed.path, err))
	}
	return nil
}

// slotArg reads the number of a keyslot or token.
func slotArg(what, s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 31 {
		return 0, misusef("%q is no %s: 0 to 31", s, what)
	}
	return n, nil
}

func (c *cli) luksPriority() *cobra.Command {
	var e editFlags
	words := []string{"ignore", "normal", "prefer"}
	cmd := &cobra.Command{
		Use:   "priority IMAGE SLOT ignore|normal|prefer",
		Short: "Say when a keyslot is tried",
		Long: `Say when a keyslot is tried: "prefer" before the others, "normal", or "ignore": only
if it is asked for by --key-slot. LUKS2.`,
		Example: `  keyway luks priority vault.img 1 ignore`,
		Args:    exactly("IMAGE", "SLOT", "ignore, normal or prefer"),
		RunE: func(_ *cobra.Command, args []string) error {
			slot, err := slotArg("keyslot", args[1])
			if err != nil {
				return err
			}
			p := slices.Index(words, args[2])
			if p < 0 {
				return misusef("priority %q is not ignore, normal or prefer", args[2])
			}
			return e.change(args[0], func(ed *luksEdit) error { return ed.SetPriority(slot, p) })
		},
	}
	e.add(cmd)
	return cmd
}

func (c *cli) luksLabel() *cobra.Command {
	var e editFlags
	var label, subsystem, uuid string
	cmd := &cobra.Command{
		Use:   "label IMAGE [--label L] [--subsystem S] [--uuid U]",
		Short: "Set label, subsystem and UUID",
		Long: `Set the label and the subsystem (LUKS2), up to 47 bytes each, and the UUID. What is
not named stays; an empty one is removed.`,
		Example: `  keyway luks label vault.img --label vault`,
		Args:    exactly("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			given := cmd.Flags().Changed
			if !given("label") && !given("subsystem") && !given("uuid") {
				return misusef("luks label: one of --label, --subsystem and --uuid says what is set")
			}
			return e.change(args[0], func(ed *luksEdit) error {
				if given("uuid") {
					if err := ed.SetUUID(uuid); err != nil {
						return err
					}
				}
				if !given("label") && !given("subsystem") {
					return nil
				}
				h := ed.Header()
				if !given("label") {
					label = h.Label
				}
				if !given("subsystem") {
					subsystem = h.Subsystem
				}
				return ed.SetLabel(label, subsystem)
			})
		},
	}
	e.add(cmd)
	cmd.Flags().StringVar(&label, "label", "", "new `label`")
	cmd.Flags().StringVar(&subsystem, "subsystem", "", "new `subsystem`")
	cmd.Flags().StringVar(&uuid, "uuid", "", "new `UUID`")
	return cmd
}

func (c *cli) luksFlags() *cobra.Command {
	var e editFlags
	cmd := &cobra.Command{
		Use:   "flags IMAGE [FLAG]...",
		Short: "Set the options that every activation has",
		Long: `Set the options that every activation has, such as allow-discards; those that are not
named are removed. LUKS2.`,
		Example: `  keyway luks flags vault.img allow-discards
  keyway luks flags vault.img`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misusef("%s: IMAGE is missing", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return e.change(args[0], func(ed *luksEdit) error { return ed.SetFlags(args[1:]) })
		},
	}
	e.add(cmd)
	return cmd
}
