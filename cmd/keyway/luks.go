package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"keyway/luks"
)

func (c *cli) luks() *cobra.Command {
	cmd := &cobra.Command{
		Use: "luks", Short: "Volumes of LUKS1 and LUKS2: format, open, dump; keys: add, change, remove", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misusef("luks: a command is missing, such as format, open or dump")
		},
	}
	cmd.AddCommand(
		c.luksFormat(), c.luksOpen(), c.luksDump(), c.luksAddKey(), c.luksChangeKey(), c.luksRemoveKey(), c.luksKillSlot(), c.luksErase(),
		c.luksPriority(), c.luksLabel(), c.luksFlags(), c.luksToken(), c.luksBackup(), c.luksRestore(), c.luksRepair(),
	)
	return cmd
}

// A luksImage is a header and where it was read from.
type luksImage struct {
	*luks.Header
	file *os.File // of the header
	data int64    // bytes of the data device
}

// openLUKS reads the header of image, which is in the file header if that is not
// "", and ends there if exact. The caller closes file. alone says that the data may be
// elsewhere.
func openLUKS(image, header, policy string, exact, alone bool) (l luksImage, err error) {
	p, err := luks.ParsePolicy(policy)
	if err != nil {
		return l, misusef("--header-policy: %w", err)
	}
	o := luks.Options{Policy: p, Exact: exact}
	if alone {
		o.Data = -1
	}
	var data *os.File // where it is apart
	if header == "" {
		header = image
	} else {
		f, n, err := openSized(image)
		if err != nil {
			return l, err
		}
		defer f.Close()
		data = f
		if n == 0 {
			return l, fmt.Errorf("%s is empty", image)
		}
		o.Data, l.data = n, n
	}
	f, n, err := openSized(header)
	if err != nil {
		return l, err
	}
	if l.data == 0 {
		l.data = n
	}
	l.file = f
	if l.Header, err = luks.Read(f, n, o); err != nil {
		f.Close()
		return l, fmt.Errorf("%s: %w", header, err)
	}
	if data != nil {
		if err := checkApart(l.Header, image, data, l.data, n, exact); err != nil {
			f.Close()
			return l, err
		}
	}
	for i, c := range l.Copies {
		if c.Err != nil {
			warn("%s: copy %d of the header is damaged, and the other is used: %v", header, i+1, c.Err)
		}
	}
	return l, nil
}

// openSized opens a file or a block device for reading, and tells its size in bytes.
func openSized(path string) (*os.File, int64, error) { return openSizedAs(path, os.O_RDONLY) }

func openSizedAs(path string, flags int) (*os.File, int64, error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() && st.Mode().Type() != os.ModeDevice {
		err = errors.New("is neither a file nor a block device")
	}
	var n int64
	if err == nil {
		n, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return f, n, nil
}

const permissive = "permissive"

func (c *cli) luksDump() *cobra.Command {
	var policy string
	cmd := &cobra.Command{
		Use:   "dump IMAGE",
		Short: "Describe the header of a LUKS volume, or a file with a header alone",
		Long: `Describe the header of a LUKS volume, or of a file that holds a header alone.
Nothing is written, and no daemon is asked.

With --json the metadata of LUKS2 is printed as "cryptsetup luksDump
--dump-json-metadata" prints it; for LUKS1, what LUKS2 would say of it.`,
		Args: exactly("IMAGE"),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := openLUKS(args[0], "", policy, false, true)
			if err != nil {
				return err
			}
			defer l.file.Close()
			if c.json {
				_, err = fmt.Printf("%s\n", l.Metadata())
			} else {
				_, err = fmt.Print(l.Text())
			}
			return err
		},
	}
	cmd.Flags().StringVar(&policy, "header-policy", permissive, "what a header may ask for: `strict` or permissive")
	return c.withJSON(cmd)
}
