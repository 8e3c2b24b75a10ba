package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/luks"
)

func (c *cli) luksBackup() *cobra.Command {
	var header, policy string
	cmd := &cobra.Command{
		Use:   "backup IMAGE FILE",
		Short: "Copy the header with its key material to a new file",
		Long: `Copy the header with its key material to a new file, which has mode 0600: the bytes of
"cryptsetup luksHeaderBackup". Without the header the data is lost: keep a copy of it
apart from the volume.

Whoever has the copy opens the volume with the passphrases of today, also after they
were removed from the volume. The image may be in use.`,
		Example: `  keyway luks backup vault.img vault.header-backup`,
		Args:    exactly("IMAGE", "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := openLUKS(orHeader(args[0], header), "", policy, false, true)
			if err != nil {
				return err
			}
			defer l.file.Close()
			return backup(&l, args[1])
		},
	}
	cmd.Flags().StringVar(&header, "header", "", "`file` with the header, where it is apart from IMAGE")
	cmd.Flags().StringVar(&policy, "header-policy", permissive, "what a header may ask for: `strict` or permissive")
	return cmd
}

func orHeader(image, header string) string {
	if header != "" {
		return header
	}
	return image
}

// backup writes the file, or leaves none.
func backup(l *luksImage, path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(path)
		}
	}()
	if err := l.Backup(l.file, f); err != nil {
		return err
	}
	// Whoever changes a header meanwhile has locked it, and so has a daemon that only
	// serves the data: reading twice tells them apart.
	if err := l.Backup(l.file, &comparing{f, 0}); err != nil {
		return err
	}
	return errors.Join(f.Sync(), syncDirs([]string{path}))
}

// comparing is a writer that wants what is written to be what r has.
type comparing struct {
	r  io.ReaderAt
	at int64
}

func (c *comparing) Write(b []byte) (int, error) {
	was := make([]byte, len(b))
	if _, err := c.r.ReadAt(was, c.at); err != nil {
		return 0, err
	}
	if !bytes.Equal(was, b) {
		return 0, errors.New("the header was changed while it was copied: do it again")
	}
	c.at += int64(len(b))
	return len(b), nil
}

func (c *cli) luksRestore() *cobra.Command {
	var e editFlags
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "restore IMAGE FILE",
		Short: "Put a backup of the header in the place of the header",
		Long: `Put a backup of the header in the place of the header. From then on the passphrases of
the backup open the volume, and those of the present header do not.

A backup that is not of this volume (of another UUID, volume key or place of the data) is
refused, as is an image without a header, unless --force says that it is the right one.
An interrupted restore is done again.`,
		Example: `  keyway luks restore vault.img vault.header-backup`,
		Args:    exactly("IMAGE", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := luks.ParsePolicy(e.policy)
			if err != nil {
				return misusef("--header-policy: %w", err)
			}
			from, size, err := openSized(args[1])
			if err != nil {
				return err
			}
			defer from.Close()
			path := e.path(args[0])
			f, n, err := openToChange(path, true)
			if err != nil {
				return err
			}
			defer f.Close()
			o := luks.Options{Policy: p}
			if e.header != "" {
				o.Data = -1
			}
			lost := fmt.Sprintf("%s: its header, with the passphrases that the backup %s does not have, will be lost", path, args[1])
			if err := confirm(cmd.Context(), lost, yes); err != nil {
				return err
			}
			done := working("writing the header")
			_, err = luks.Restore(f, n, from, size, o, force)
			done()
			if errors.Is(err, luks.ErrMismatch) {
				return &control.Error{Message: fmt.Sprintf("%s: %v", path, err), Hint: "nothing is changed: --force restores it all the same, if it is the right one"}
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		},
	}
	e.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also if the backup seems to be of another volume")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (c *cli) luksRepair() *cobra.Command {
	var e editFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "repair IMAGE",
		Short: "Make a damaged copy of a LUKS2 header from the other",
		Long: `Make a damaged copy of a LUKS2 header from the other. Volumes open with one good copy
too, and a change of the header repairs the other, unless something else is in its place.

Where the first copy is damaged something else may have been written over it on purpose,
such as a file system: that is destroyed.`,
		Example: `  keyway luks repair vault.img`,
		Args:    exactly("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := luks.ParsePolicy(e.policy)
			if err != nil {
				return misusef("--header-policy: %w", err)
			}
			path := e.path(args[0])
			f, n, err := openToChange(path, true)
			if err != nil {
				return err
			}
			defer f.Close()
			o := luks.Options{Policy: p, Data: -1}
			h, err := luks.Read(f, n, o)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			for i, copied := range h.Copies {
				if copied.Err == nil {
					continue
				}
				lost := fmt.Sprintf("%s: copy %d of the header (%v) will be overwritten with the other: %d bytes at byte %d, whatever they are by now", path, i+1, copied.Err, h.Size, copied.Offset)
				if err := confirm(cmd.Context(), lost, yes); err != nil {
					return err
				}
			}
			which, err := luks.Repair(f, n, o)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if c.json {
				return printJSON(struct {
					Repaired int `json:"repaired_copy"` // 1 or 2; 0: none was damaged
				}{which})
			}
			if which == 0 {
				fmt.Println("both copies are good")
			} else {
				fmt.Printf("copy %d is made anew from the other\n", which)
			}
			return nil
		},
	}
	e.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c.withJSON(cmd)
}
