package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/dm/target"
	"keyway/internal/daemon"
	"keyway/keystore"
	"keyway/luks"
)

func (c *cli) luksOpen() *cobra.Command {
	var header, keyFile, policy string
	var slot int
	var r control.Create
	cmd := &cobra.Command{
		Use:   "open IMAGE NAME",
		Short: "Make device NAME of the data of a LUKS volume",
		Long: `Make device NAME of the data of a LUKS volume. The passphrase is asked for on a
terminal; otherwise it is the first line of standard input, or the whole of the
file that --key-file names, "-" for standard input.

The passphrase stays in this process. The daemon gets the volume key alone, as key
luks-NAME, by descriptor; it is gone with the last table that uses it. After a
restart of the daemon the same command brings the device back to life.`,
		Example: `  keyway luks open vault.img vault
  keyway luks open data.img data --header data.header --key-file data.key`,
		Args: exactly("IMAGE", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("key-slot") && (slot < 0 || slot > 31) {
				return misusef("luks open: --key-slot %d is not 0 to 31", slot)
			}
			if err := keystore.CheckName("luks-" + args[1]); err != nil {
				return misusef("luks open: %w", err)
			}
			l, err := openLUKS(args[0], header, policy, false)
			if err != nil {
				return err
			}
			defer l.file.Close()
			if err := l.Writable(); err != nil {
				return err
			}
			pass, err := readPassphrase(cmd.Context(), keyFile, "passphrase of "+args[0])
			if err != nil {
				return err
			}
			v, err := l.Open(cmd.Context(), l.file, pass.Bytes(), slot)
			pass.Wipe()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			defer v.Key.Wipe()
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			r.Name = args[1]
			return changed(c.openVolume(cmd.Context(), l, v, path, r))
		},
	}
	f := cmd.Flags()
	f.StringVar(&header, "header", "", "`file` with the header, where it is apart from the data")
	f.StringVar(&keyFile, "key-file", "", "`file` whose bytes are the passphrase, - for standard input to its end")
	f.IntVar(&slot, "key-slot", luks.AnySlot, "try this `keyslot` alone (default: all, the preferred first)")
	f.StringVar(&policy, "header-policy", permissive, "what a header may ask for: `strict` or permissive")
	f.BoolVar(&r.ReadOnly, "read-only", false, "refuse writes")
	return c.withTimeout(cmd, giveUp)
}

// openVolume gives the daemon the key of an opened volume, and a table that uses it.
// Without the table the key goes again.
func (c *cli) openVolume(ctx context.Context, l luksImage, v *luks.Volume, path string, r control.Create) (ch control.Changed, err error) {
	mode, err := target.ModeOf("crypt", l.Segments[0].Encryption, v.Key.Len())
	if err != nil {
		return ch, fmt.Errorf("%s: %w", path, err)
	}
	name := "luks-" + r.Name
	r.Table, err = l.Table(v, daemon.PathURI(path), l.data, fmt.Sprintf(":%d:logon:%s", v.Key.Len(), name))
	if err != nil {
		return ch, fmt.Errorf("%s: %w", path, err)
	}
	client := c.client()
	again, err := waitsForKey(ctx, client, r, name)
	if err != nil {
		return ch, err
	}
	k := control.AddKey{
		Name: name, Mode: mode.String(), DataUnit: 512, Auto: true, Weak: true,
		Source: fmt.Sprintf("LUKS keyslot %d of %s", v.Slot, path),
	}
	if ch, err = addKey(ctx, client, k, v.Key); err != nil || again {
		return ch, err
	}
	if ch, err = client.Create(ctx, r); err != nil {
		_, undo := client.EvictKey(context.WithoutCancel(ctx), name, control.EvictKey{Force: true})
		return ch, errors.Join(err, undo)
	}
	return ch, nil
}

// waitsForKey reports whether the device is there already, with this table, and the
// daemon has been restarted since, so that it lacks only its key. With another table
// the key would be the wrong one: an error.
func waitsForKey(ctx context.Context, client *control.Client, r control.Create, key string) (bool, error) {
	keys, err := client.Keys(ctx)
	if err != nil {
		return false, err
	}
	for _, k := range keys {
		if k.Name != key || k.State != "missing" {
			continue
		}
		d, err := client.Device(ctx, r.Name)
		if err != nil {
			return false, fmt.Errorf("key %q is missing, and not for this device: %w", key, err)
		}
		text, err := client.Table(ctx, d.Name, false)
		if err != nil {
			return false, err
		}
		if strings.TrimSpace(text) != strings.TrimSpace(r.Table) {
			return false, fmt.Errorf("device %q waits for the key of another volume: its table is %q", r.Name, strings.TrimSpace(text))
		}
		return true, nil
	}
	return false, nil
}
