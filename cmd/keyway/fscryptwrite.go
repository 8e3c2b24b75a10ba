package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/size"
)

// maxHeld bounds what is read from a pipe before it is known how much comes: nothing is
// written before everything that can be refused was.
const maxHeld = 64 << 20 // bytes

func (c *cli) fscryptWrite() *cobra.Command {
	ff := fsFlags{write: true}
	var offset, length string
	cmd := &cobra.Command{
		Use:   "write VOLUME PATH [--offset N] [--length N]",
		Short: "Replace contents of a file in place by standard input",
		Long: `Replace contents of a file in place by what standard input has, from --offset on, and
return when it is on the medium. Only bytes that exist are replaced, in blocks that have
data: the file becomes neither longer nor shorter, holes stay holes, and no metadata
changes, not even the times, so that backups that go by them do not see it. Whole data
units are encrypted as the kernel does it, which reads the file afterwards.

Everything that can be refused is before a byte is written: a file system that is
mounted, served to somebody, was not unmounted or has errors, as far as can be told;
files that are immutable, append-only, compressed, protected by fs-verity, journalled
with their data, or have their data in the inode. A file system that is mounted read-only
leaves no trace: unmount it first. What fails or is interrupted in the middle leaves each
data unit old or new.

From a pipe up to 64 MiB are written; for more --length says how much will come. Of a
file that standard input is, all that follows is written.

` + volumeHelpText,
		Example: `  keyway fscrypt write phone.img /media/1.jpg --key ./user.key < new.jpg
  printf on | keyway fscrypt write userdata settings/adb --offset 16 --key ./user.key`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return exactly("VOLUME", "PATH")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r := control.FscryptWrite{Path: []byte(args[1])}
			if r.Offset, err = size.Parse(offset); err != nil {
				return misusef("%s: --offset: %w", cmd.CommandPath(), err)
			}
			for i, k := range ff.keys {
				if s := k[strings.LastIndexByte(k, '=')+1:]; s == "-" || s == "fd:0" {
					return misusef("--key %d: standard input has what is to be written; give the key by another descriptor (fd:3) or a file", i+1)
				}
			}
			most := int64(-1)
			if length != "" {
				if most, err = size.Parse(length); err != nil {
					return misusef("%s: --length: %w", cmd.CommandPath(), err)
				}
			}
			v, err := c.openFS(cmd, &ff, args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, v.close(cmd.Context())) }()
			ctx, stop := c.limited(cmd.Context())
			defer stop()
			data, err := input(os.Stdin, most)
			if err != nil {
				return err
			}
			r.Length = data.n
			if err := v.write(ctx, r, data); err != nil {
				return cause(ctx, err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&offset, "offset", "0", "byte of the file where the new contents begin: `bytes`, or 4K, 1M, ...")
	f.StringVar(&length, "length", "", "how much of standard input is written: `bytes`, or 4K, 1M, ...")
	ff.add(f, "key")
	cmd.ValidArgsFunction = c.completeVolume(&ff, 1)
	return c.withTimeout(cmd, "give up after this `duration`, in the middle too (default: wait)")
}

// A sized reader has n bytes, as far as is known.
type sized struct {
	io.Reader
	n int64
}

// input tells how much of in is to be written: what follows in a file, or all that a
// pipe has; most, unless it is negative.
func input(in *os.File, most int64) (*sized, error) {
	st, err := in.Stat()
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	if st.Mode().IsRegular() {
		at, err := in.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		rest := max(0, st.Size()-at)
		if most > rest {
			return nil, fmt.Errorf("standard input has %d bytes, less than the --length of %d", rest, most)
		}
		if most >= 0 {
			rest = most
		}
		return &sized{in, rest}, nil
	}
	if most >= 0 {
		return &sized{in, most}, nil
	}
	b, err := io.ReadAll(io.LimitReader(in, maxHeld+1))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	if len(b) > maxHeld {
		return nil, &control.Error{
			Message: fmt.Sprintf("standard input is a pipe with more than %d bytes; nothing was written", maxHeld),
			Hint:    "--length says how much will come, or give a file",
		}
	}
	return &sized{bytes.NewReader(b), int64(len(b))}, nil
}

func (l *localFS) write(ctx context.Context, r control.FscryptWrite, data io.Reader) error {
	_, err := l.image.Write(ctx, r, data)
	return err
}

func (m *remoteFS) write(ctx context.Context, r control.FscryptWrite, data io.Reader) error {
	return m.with(control.Fscrypt{}, func(k control.Fscrypt, keys *os.File) error {
		r.Keys = k.Keys
		_, err := m.client.FscryptWrite(ctx, m.device, r, keys, data)
		return err
	})
}
