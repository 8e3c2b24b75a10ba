package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keyway/luks"
)

func (c *cli) luksToken() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Tokens: add, show, remove, assign, unassign", Args: noSuchCommand,
		Long: `Tokens say where the passphrase of keyslots comes from: notes in a LUKS2 header that
programs such as systemd-cryptenroll leave there. Keyway keeps, shows and changes them;
it does not act on them.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misusef("luks token: a command is missing: add, show, remove, assign or unassign")
		},
	}
	cmd.AddCommand(c.tokenAdd(), c.tokenShow(), c.tokenRemove(),
		c.tokenAssign("assign", "Say that a token is for a keyslot", true), c.tokenAssign("unassign", "Say that a token is not for a keyslot any more", false))
	return cmd
}

// maxToken bounds a token, in bytes: it has to fit a header of 4 MiB.
const maxToken = 4 << 20

func (c *cli) tokenAdd() *cobra.Command {
	var e editFlags
	var file string
	var id int
	cmd := &cobra.Command{
		Use:   "add IMAGE --json-file FILE|-",
		Short: "Add a token",
		Long: `Add a token: an object of JSON with a type, a list of the keyslots that it is for, and
what its program wants, as "cryptsetup token import" takes it. It is not encrypted.`,
		Example: `  echo '{"type":"example","keyslots":["0"],"where":"in the safe"}' | keyway luks token add vault.img --json-file -`,
		Args:    exactly("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return misusef("luks token add: --json-file is missing, - for standard input")
			}
			if cmd.Flags().Changed("token-id") && (id < 0 || id > 31) {
				return misusef("luks token add: --token-id %d is not 0 to 31", id)
			}
			in := os.Stdin
			if file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			text, err := io.ReadAll(io.LimitReader(in, maxToken+1))
			if err != nil {
				return err
			}
			if len(text) > maxToken {
				return fmt.Errorf("%s: a token has at most %d bytes", file, maxToken)
			}
			n := 0
			err = e.change(args[0], func(ed *luksEdit) (err error) {
				n, err = ed.AddToken(text, id)
				return err
			})
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(struct {
					Token int `json:"token"`
				}{n})
			}
			fmt.Printf("token %d\n", n)
			return nil
		},
	}
	e.add(cmd)
	cmd.Flags().StringVar(&file, "json-file", "", "`file` with the token, - for standard input")
	cmd.Flags().IntVar(&id, "token-id", luks.AnyToken, "`number` of the token (default: the first free one)")
	return c.withJSON(cmd)
}

func (c *cli) tokenShow() *cobra.Command {
	var policy string
	cmd := &cobra.Command{
		Use:   "show IMAGE [ID]",
		Short: "Print the tokens, or one, each a line of JSON",
		Long: `Print the tokens, each a line of JSON; or the one with that number, as "cryptsetup
token export" does.`,
		Example: `  keyway luks token show vault.img 0`,
		Args:    atMost("IMAGE", "ID"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misusef("luks token show: IMAGE is missing")
			}
			id := luks.AnyToken
			if len(args) == 2 {
				var err error
				if id, err = slotArg("token", args[1]); err != nil {
					return err
				}
			}
			l, err := openLUKS(args[0], "", policy, false, true)
			if err != nil {
				return err
			}
			defer l.file.Close()
			var out strings.Builder
			for i := range l.Tokens {
				if id == luks.AnyToken || id == l.Tokens[i].ID {
					fmt.Fprintf(&out, "%s\n", l.Tokens[i].JSON())
				}
			}
			if id != luks.AnyToken && out.Len() == 0 {
				return fmt.Errorf("%s: token %d is not in use", args[0], id)
			}
			_, err = fmt.Print(out.String())
			return err
		},
	}
	cmd.Flags().StringVar(&policy, "header-policy", permissive, "what a header may ask for: `strict` or permissive")
	return c.withJSON(cmd)
}

func (c *cli) tokenRemove() *cobra.Command {
	var e editFlags
	var yes bool
	cmd := &cobra.Command{
		Use:     "remove IMAGE ID",
		Short:   "Remove a token; its keyslots stay",
		Example: `  keyway luks token remove vault.img 0 --yes`,
		Args:    exactly("IMAGE", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := slotArg("token", args[1])
			if err != nil {
				return err
			}
			return e.change(args[0], func(ed *luksEdit) error {
				for _, t := range ed.Header().Tokens {
					if t.ID != id {
						continue
					}
					lost := fmt.Sprintf("%s: token %d will be lost, and with it what its program (%s) knows of the passphrase of %d keyslots", ed.path, id, strconv.Quote(t.Type), len(t.Keyslots))
					if err := confirm(cmd.Context(), lost, yes); err != nil {
						return err
					}
				}
				return ed.RemoveToken(id)
			})
		},
	}
	e.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (c *cli) tokenAssign(name, short string, assigned bool) *cobra.Command {
	var e editFlags
	cmd := &cobra.Command{
		Use: name + " IMAGE ID SLOT", Short: short,
		Example: "  keyway luks token " + name + " vault.img 0 1",
		Args:    exactly("IMAGE", "ID", "SLOT"),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := slotArg("token", args[1])
			if err != nil {
				return err
			}
			slot, err := slotArg("keyslot", args[2])
			if err != nil {
				return err
			}
			return e.change(args[0], func(ed *luksEdit) error { return ed.AssignToken(id, slot, assigned) })
		},
	}
	e.add(cmd)
	return cmd
}
