package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/secret"
	"keyway/keystore"
)

func (c *cli) keyGenerate() *cobra.Command {
	return c.wrap("generate", "Make a key that only the hardware of the emulated engines ever sees", `Make a key inside the hardware that the emulated engines of the daemon share, and
write it to a new file in its long-term form, which only that hardware can open.
"keyway key add --type wrapped" takes it.`, false)
}

func (c *cli) keyImport() *cobra.Command {
	return c.wrap("import", "Wrap a raw key of 32 bytes by the hardware of the emulated engines", `Wrap a raw key of 32 bytes by the hardware that the emulated engines of the daemon
share, and write its long-term form to a new file. The raw key is no longer needed
then.`, true)
}

func (c *cli) keyPrepare() *cobra.Command {
	return c.wrap("prepare", "Turn a long-term wrapped key into the form of this boot", `Turn a wrapped key from its long-term form into the one that engines take, which is
good until the daemon ends, and write it to a new file. "keyway key add --type
wrapped" does this by itself.`, true)
}

// wrap is one operation of the hardware; from says whether it takes a key.
func (c *cli) wrap(op, short, long string, takes bool) *cobra.Command {
	var from, file string
	use := op + " --file OUT"
	if takes {
		use = op + " --from FILE|- --file OUT"
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return misusef("key %s: --file says where the wrapped key goes", op)
			}
			if takes && from == "" {
				return misusef("key %s: --from says where the key comes from; - is standard input", op)
			}
			// Early, so that no key is made in vain.
			if _, err := os.Lstat(file); err == nil {
				return fmt.Errorf("key %s: %s: %w", op, file, fs.ErrExist)
			}
			var pass *os.File
			if takes {
				b, err := readKey(from)
				if err != nil {
					return err
				}
				defer b.Wipe()
				r, w, err := os.Pipe()
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = w.Write(b.Bytes()) // a pipe holds a page at least, more than any key has
				if err = errors.Join(err, w.Close()); err != nil {
					return err
				}
				pass = r
			}
			made, err := c.client().Wrap(cmd.Context(), control.Wrap{Op: op}, pass)
			if err != nil {
				return err
			}
			b, err := secret.Copy(made.Key)
			if err != nil {
				return err
			}
			defer b.Wipe()
			return keystore.Create(file, b)
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "new `file` for the wrapped key, with mode 0600")
	if takes {
		cmd.Flags().StringVar(&from, "from", "", "`file` with the key, - for standard input")
	}
	return c.withTimeout(cmd, giveUp)
}

func readKey(from string) (*secret.Buffer, error) {
	if from == "-" {
		return keystore.Read(os.Stdin, "standard input")
	}
	return keystore.ReadFile(from)
}
