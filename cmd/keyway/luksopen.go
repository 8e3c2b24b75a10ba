package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/dm/target"
	"keyway/internal/daemon"
	"keyway/keystore"
)

func (c *cli) luksOpen() *cobra.Command {
	var vf volumeFlags
	var r control.Create
	cmd := &cobra.Command{
		Use:   "open IMAGE NAME",
		Short: "Make device NAME of the data of a LUKS volume",
		Long: `Make device NAME of the data of a LUKS volume. The passphrase is asked for on a
terminal; otherwise it is the first line of standard input, or the whole of the
file that --key-file names, "-" for standard input, or of what --key-fd has open.

The passphrase stays in this process. The daemon gets the volume key alone, as key
luks-NAME, by descriptor; it is gone with the last table that uses it. After a
restart of the daemon the same command brings the device back to life.`,
		Example: `  keyway luks open vault.img vault
  keyway luks open data.img data --header data.header --key-file data.key`,
		Args: exactly("IMAGE", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := vf.check(cmd); err != nil {
				return err
			}
			if err := keystore.CheckName("luks-" + args[1]); err != nil {
				return misusef("luks open: %w", err)
			}
			v, err := vf.open(cmd.Context(), args[0], r.ReadOnly)
			if err != nil {
				return err
			}
			defer v.close()
			r.Name = args[1]
			return changed(v.give(cmd.Context(), c.client(), r))
		},
	}
	f := cmd.Flags()
	vf.add(f)
	f.BoolVar(&r.ReadOnly, "read-only", false, "refuse writes")
	return c.withTimeout(cmd, giveUp)
}

// give gives a daemon the key of the volume, and a table that uses it. Without the
// table the key goes again.
func (v *volume) give(ctx context.Context, client *control.Client, r control.Create) (ch control.Changed, err error) {
	mode, err := v.mode()
	if err != nil {
		return ch, fmt.Errorf("%s: %w", v.path, err)
	}
	name := "luks-" + r.Name
	table := v.Table
	if r.ReadOnly {
		table = v.ReadTable
	}
	r.Table, err = table(v.Volume, daemon.PathURI(v.path), v.data, fmt.Sprintf(":%d:logon:%s", v.Key.Len(), name))
	if err != nil {
		return ch, fmt.Errorf("%s: %w", v.path, err)
	}
	again, err := waitsForKey(ctx, client, r, name)
	if err != nil {
		return ch, err
	}
	k := control.AddKey{
		Name: name, Mode: mode.String(), DataUnit: 512, Auto: true, Weak: true,
		Source: fmt.Sprintf("LUKS keyslot %d of %s", v.Slot, v.path),
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

// mode is the mode of the volume key: that of the cipher of every segment that it opens.
func (v *volume) mode() (blkcrypto.Mode, error) {
	var mode blkcrypto.Mode
	for i := range v.Segments {
		s := &v.Segments[i]
		if s.Type != "crypt" || s.Backup() {
			continue
		}
		m, err := target.ModeOf("crypt", s.Encryption, v.Key.Len())
		if err != nil {
			return 0, fmt.Errorf("segment %d: %w", s.ID, err)
		}
		if mode != 0 && m != mode {
			return 0, fmt.Errorf("segment %d: its cipher %s has mode %v, and a segment before it %v: one key does not serve both", s.ID, s.Encryption, m, mode)
		}
		mode = m
	}
	if mode == 0 {
		return 0, errors.New("no segment is encrypted")
	}
	return mode, nil
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
