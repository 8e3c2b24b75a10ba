package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/luks"
)

// slotResult tells which keyslot a command has changed.
type slotResult struct {
	Keyslot int `json:"keyslot"`
}

func (c *cli) printSlot(slot int, format string) error {
	if c.json {
		return printJSON(slotResult{slot})
	}
	fmt.Printf(format+"\n", slot)
	return nil
}

// checkSlot refuses numbers that no header has.
func checkSlot(cmd *cobra.Command, slot int) error {
	if cmd.Flags().Changed("key-slot") && (slot < 0 || slot > 31) {
		return misusef("%s: --key-slot %d is not 0 to 31", cmd.CommandPath(), slot)
	}
	return nil
}

// hintKey adds the way out of what headers refuse, and says that an interruption is
// no harm. It takes nil.
func hintKey(err error) error {
	way := ""
	switch {
	case errors.Is(err, context.Canceled):
		// It is looked at before the first write, and during derivations.
		return fmt.Errorf("interrupted: nothing is changed (%w)", err)
	case errors.Is(err, luks.ErrLastKey):
		way = "nothing is changed: add another key first, or --last removes it all the same"
	case errors.Is(err, luks.ErrLocked):
		way = "nothing is changed: what has it open may be a daemon that serves it (keyway ls), cryptsetup or a virtual machine"
	case errors.Is(err, luks.ErrFull):
		way = "nothing is changed: keyway luks dump shows the keyslots, kill-slot and remove-key make room"
	case errors.Is(err, luks.ErrUnbound):
		way = "keyway luks dump shows what is unbound; kill-slot removes such a keyslot, and change-key with --key-slot changes its passphrase"
	default:
		return err
	}
	return &control.Error{Message: err.Error(), Hint: way}
}

func (c *cli) luksAddKey() *cobra.Command {
	var e editFlags
	var have, want keyFlags
	var kdf kdfFlags
	var slot int
	cmd := &cobra.Command{
		Use:   "add-key IMAGE",
		Short: "Add a passphrase",
		Long: `Add a passphrase: one that opens the volume is asked for, then the new one, which
gets a keyslot of its own. Without a terminal they are the first two lines of standard
input, where no file or descriptor is named.

IMAGE may be a file with the header alone. Until the new keyslot is whole the header
does not name it: an interruption leaves the volume as it was.`,
		Example: `  keyway luks add-key vault.img
  keyway luks add-key vault.img --new-key-file spare.key --key-slot 7`,
		Args: exactly("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkSlot(cmd, slot); err != nil {
				return err
			}
			o, err := kdf.options(cmd.Flags())
			if err != nil {
				return err
			}
			ed, err := e.open(args[0])
			if err != nil {
				return err
			}
			defer ed.close()
			ctx := cmd.Context()
			v, err := unlock(ctx, ed.path, ed.Header(), ed.file, &have, "a passphrase of "+args[0], luks.AnySlot)
			if err != nil {
				return err
			}
			defer v.Key.Wipe()
			pass, err := want.readNew(ctx, "new passphrase of "+args[0])
			if err != nil {
				return err
			}
			defer pass.Wipe()
			done := working("making the keyslot")
			n, err := ed.AddKey(ctx, v, pass.Bytes(), slot, o)
			done()
			if err != nil {
				return hintKey(fmt.Errorf("%s: %w", ed.path, err))
			}
			return c.printSlot(n, "keyslot %d opens with the new passphrase")
		},
	}
	e.add(cmd)
	have.add(cmd.Flags())
	want.addNamed(cmd.Flags(), "new-key", "the new passphrase")
	kdf.add(cmd.Flags(), true)
	cmd.Flags().IntVar(&slot, "key-slot", luks.AnySlot, "`number` of the new keyslot (default: the first free one)")
	return c.withJSON(cmd)
}

func (c *cli) luksChangeKey() *cobra.Command {
	var e editFlags
	var have, want keyFlags
	var kdf kdfFlags
	var slot int
	var inPlace bool
	cmd := &cobra.Command{
		Use:   "change-key IMAGE",
		Short: "Replace a passphrase by another",
		Long: `Replace a passphrase by another: the old one is asked for, then the new one. Without
a terminal they are the first two lines of standard input, where no file or descriptor
is named.

The new key material is made durable beside the old, then the header names it instead,
in one step, then the old material is overwritten: at any interruption the keyslot opens
with the old passphrase or with the new one. If there is no room for both, that is
refused, unless --in-place accepts that an interruption loses this keyslot.`,
		Example: `  keyway luks change-key vault.img
  keyway luks change-key vault.img --key-slot 1 --key-file old.key --new-key-file new.key`,
		Args: exactly("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkSlot(cmd, slot); err != nil {
				return err
			}
			o, err := kdf.options(cmd.Flags())
			if err != nil {
				return err
			}
			o.InPlace = inPlace
			ed, err := e.open(args[0])
			if err != nil {
				return err
			}
			defer ed.close()
			ctx := cmd.Context()
			old, err := have.read(ctx, "old passphrase of "+args[0])
			if err != nil {
				return err
			}
			defer old.Wipe()
			pass, err := want.readNew(ctx, "new passphrase of "+args[0])
			if err != nil {
				return err
			}
			defer pass.Wipe()
			done := working("changing the keyslot")
			n, err := ed.ChangeKey(ctx, old.Bytes(), pass.Bytes(), slot, o)
			done()
			if err != nil {
				return hintKey(fmt.Errorf("%s: %w", ed.path, err))
			}
			return c.printSlot(n, "keyslot %d opens with the new passphrase, and none with the old")
		},
	}
	e.add(cmd)
	have.add(cmd.Flags())
	want.addNamed(cmd.Flags(), "new-key", "the new passphrase")
	kdf.add(cmd.Flags(), true)
	cmd.Flags().IntVar(&slot, "key-slot", luks.AnySlot, "change this `keyslot` (default: the first that opens with the old passphrase)")
	cmd.Flags().BoolVar(&inPlace, "in-place", false, "where there is no room for old and new: overwrite, at the risk of this keyslot")
	return c.withJSON(cmd)
}

func (c *cli) luksRemoveKey() *cobra.Command {
	var e editFlags
	var key keyFlags
	var last, yes bool
	cmd := &cobra.Command{
		Use:   "remove-key IMAGE",
		Short: "Remove the keyslot that a passphrase opens",
		Long: `Remove the keyslot that a passphrase opens: its key material is overwritten. That of
the only one that opens the volume is refused without --last: the data is lost with it.`,
		Example: `  keyway luks remove-key vault.img --key-file spare.key --yes`,
		Args:    exactly("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ed, err := e.open(args[0])
			if err != nil {
				return err
			}
			defer ed.close()
			ctx := cmd.Context()
			v, err := unlock(ctx, ed.path, ed.Header(), ed.file, &key, "passphrase to remove from "+args[0], luks.AnySlot)
			if err != nil {
				return err
			}
			v.Key.Wipe()
			return c.killSlot(ctx, ed, v.Slot, last, yes)
		},
	}
	e.add(cmd)
	key.add(cmd.Flags())
	cmd.Flags().BoolVar(&last, "last", false, "also the last one, and the data with it")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c.withJSON(cmd)
}

func (c *cli) luksKillSlot() *cobra.Command {
	var e editFlags
	var last, yes bool
	cmd := &cobra.Command{
		Use:   "kill-slot IMAGE SLOT",
		Short: "Remove a keyslot without its passphrase",
		Long: `Remove a keyslot without its passphrase: its key material is overwritten. The only
one that opens the volume is refused without --last: the data is lost with it.`,
		Example: `  keyway luks kill-slot vault.img 3`,
		Args:    exactly("IMAGE", "SLOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			slot, err := strconv.Atoi(args[1])
			if err != nil || slot < 0 || slot > 31 {
				return misusef("luks kill-slot: %q is no keyslot: 0 to 31", args[1])
			}
			ed, err := e.open(args[0])
			if err != nil {
				return err
			}
			defer ed.close()
			return c.killSlot(cmd.Context(), ed, slot, last, yes)
		},
	}
	e.add(cmd)
	cmd.Flags().BoolVar(&last, "last", false, "also the last one, and the data with it")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c.withJSON(cmd)
}

// killSlot removes a keyslot when somebody has said yes.
func (c *cli) killSlot(ctx context.Context, ed *luksEdit, slot int, last, yes bool) error {
	h := ed.Header()
	others := 0 // that open the volume
	found, unbound := false, false
	for _, k := range h.Keyslots {
		if k.ID == slot {
			found, unbound = true, h.Unbound(slot)
		} else if !h.Unbound(k.ID) {
			others++
		}
	}
	if found && (last || others > 0 || unbound) {
		lost := fmt.Sprintf("%s: the passphrase of keyslot %d will open nothing any more; keyslots left: %d", ed.path, slot, others)
		switch {
		case unbound:
			lost = fmt.Sprintf("%s: the key in keyslot %d, which is unbound, will be lost for good", ed.path, slot)
		case others == 0:
			lost = fmt.Sprintf("%s: keyslot %d is the last: the data will be lost for good, unless there is a backup of the header", ed.path, slot)
		}
		if err := confirm(ctx, lost, yes); err != nil {
			return err
		}
	}
	if err := ed.KillSlot(slot, last); err != nil {
		return hintKey(fmt.Errorf("%s: %w", ed.path, err))
	}
	return c.printSlot(slot, "keyslot %d is gone")
}
