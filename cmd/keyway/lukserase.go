package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (c *cli) luksErase() *cobra.Command {
	var e editFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "erase IMAGE",
		Short: "Remove all keyslots, and with them the data",
		Long: `Remove all keyslots: the key material of each is overwritten. Nobody opens the volume
again, unless there is a backup of the header; that is the quick way to get rid of the
data. IMAGE may be a file with the header alone.

An interrupted erase is done again: keyslots that are left open the volume until then.`,
		Example: `  keyway luks erase old.img`,
		Args:    exactly("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ed, err := e.open(args[0])
			if err != nil {
				return err
			}
			defer ed.close()
			var slots []int
			for _, k := range ed.Header().Keyslots {
				slots = append(slots, k.ID)
			}
			if slots == nil {
				return fmt.Errorf("%s: no keyslot is in use", ed.path)
			}
			names := strings.Trim(strings.ReplaceAll(fmt.Sprint(slots), " ", ", "), "[]")
			lost := fmt.Sprintf("%s: keyslots %s will be gone, and the data lost for good, unless there is a backup of the header", ed.path, names)
			if err := confirm(cmd.Context(), lost, yes); err != nil {
				return err
			}
			// One that cannot be removed does not keep the others.
			var errs []error
			for _, id := range slots {
				if err := ed.KillSlot(id, true); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", ed.path, err))
				}
			}
			if errs != nil {
				return errors.Join(errs...)
			}
			if c.json {
				return printJSON(struct {
					Keyslots []int `json:"keyslots"` // that are gone
				}{slots})
			}
			fmt.Printf("keyslots %s are gone: nothing opens the volume\n", names)
			return nil
		},
	}
	e.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c.withJSON(cmd)
}
