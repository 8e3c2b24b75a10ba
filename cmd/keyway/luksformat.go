package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keyway/internal/secret"
	"keyway/internal/size"
	"keyway/keystore"
	"keyway/luks"
)

// A formatFlags is what luks format was asked for, in the words of the user.
type formatFlags struct {
	typ, header, volumeKey            string
	bits                              int
	offset, align, metadata, keyslots string
	create                            string // size of the file to make
	exact, discards, yes              bool
	key                               keyFlags
	kdf                               kdfFlags
	o                                 luks.FormatOptions
}

func (c *cli) luksFormat() *cobra.Command {
	var f formatFlags
	cmd := &cobra.Command{
		Use:   "format IMAGE",
		Short: "Make a LUKS volume of a file or block device",
		Long: `Make a LUKS volume of a file or block device, as cryptsetup does: LUKS2, cipher
aes-xts-plain64 with a random key of 512 bits, data from 16 MiB. What IMAGE held can
no longer be read afterwards: a terminal is asked, otherwise --yes is needed.

--size makes the file, sparse, if it is not there. --header FILE puts the header into
a file of its own, made with mode 0600, and IMAGE holds the data alone.

--exact-size does that so that the data has exactly the size of IMAGE, or of --size, and
that the header file followed by IMAGE is a LUKS volume too:
"cat FILE IMAGE > vault.img". Open it with --header FILE --exact-size.

--offset and --align-payload count sectors of 512 bytes, and --pbkdf-memory KiB, as
with cryptsetup; with a unit, such as 16M, they are sizes.`,
		Example: `  keyway luks format vault.img --size 1G
  keyway luks format vault.img --type luks1 --cipher aes-cbc-essiv:sha256 --key-size 256 --yes
  keyway luks format data.img --header data.header --key-file data.key --yes
  keyway luks format data.img --size 1G --header data.header --exact-size`,
		Args: exactly("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			return c.runFormat(cmd.Context(), args[0], &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.typ, "type", "luks2", "luks1 or luks2")
	fl.StringVar(&f.o.Cipher, "cipher", "aes-xts-plain64", "`cipher` of the data, as dm-crypt spells it")
	fl.IntVar(&f.bits, "key-size", 0, "`bits` of the volume key (default 512 for xts, else 256)")
	fl.IntVar(&f.o.SectorSize, "sector-size", 0, "`bytes` that are encrypted at once: 512, 1024, 2048 or 4096 (default 4096 where it fits)")
	fl.StringVar(&f.o.Hash, "hash", "sha256", "`hash` of the key's splitting, its digest and pbkdf2")
	fl.IntVar(&f.o.Slot, "key-slot", 0, "`number` of the keyslot")
	fl.StringVar(&f.o.Label, "label", "", "`label`, up to 47 bytes (LUKS2)")
	fl.StringVar(&f.o.Subsystem, "subsystem", "", "`subsystem`, up to 47 bytes (LUKS2)")
	fl.StringVar(&f.o.UUID, "uuid", "", "`UUID` (default: random)")
	fl.StringVar(&f.offset, "offset", "", "`sectors` before the data")
	fl.StringVar(&f.align, "align-payload", "", "`sectors` to a multiple of which the data begins, without --offset")
	fl.StringVar(&f.metadata, "luks2-metadata-size", "", "`size` of one copy of the header: 16K to 4M")
	fl.StringVar(&f.keyslots, "luks2-keyslots-size", "", "`size` of the room for keyslots")
	fl.StringVar(&f.header, "header", "", "put the header into this `file`")
	fl.BoolVar(&f.exact, "exact-size", false, "with --header: the data has exactly the size of IMAGE")
	fl.StringVar(&f.create, "size", "", "make IMAGE with this `size`, if it is not there")
	fl.BoolVar(&f.discards, "allow-discards", false, "the header says that discards may reach the medium, which tells what is free")
	fl.StringVar(&f.volumeKey, "volume-key-file", "", "`file` with the volume key, instead of a random one")
	fl.BoolVar(&f.yes, "yes", false, "do not ask")
	f.key.add(fl)
	f.kdf.add(fl, false)
	return c.withJSON(cmd)
}

// check makes options of the flags that need nothing else.
func (f *formatFlags) check(cmd *cobra.Command) (err error) {
	switch f.typ {
	case "luks1":
		f.o.Version = 1
	case "luks2", "luks":
		f.o.Version = 2
	default:
		return misusef("luks format: --type %q is neither luks1 nor luks2", f.typ)
	}
	if f.exact && f.header == "" {
		return misusef("luks format: --exact-size needs --header: the file for the header")
	}
	if f.exact && f.offset != "" {
		return misusef("luks format: --exact-size and --offset: the data begins where the header file ends")
	}
	if f.o.KeySize, err = bitsOf("luks format: --key-size", f.bits); err != nil {
		return err
	}
	for _, s := range []struct {
		flag, text string
		unit       int64
		to         *int64
	}{
		{"offset", f.offset, 512, &f.o.DataOffset}, {"align-payload", f.align, 512, &f.o.Align},
		{"luks2-metadata-size", f.metadata, 1, &f.o.MetadataSize}, {"luks2-keyslots-size", f.keyslots, 1, &f.o.KeyslotsSize},
	} {
		if s.text == "" {
			continue
		}
		if *s.to, err = unitsOf(s.text, s.unit); err != nil {
			return misusef("luks format: --%s %q is no size", s.flag, s.text)
		}
	}
	if f.discards {
		f.o.Flags = []string{"allow-discards"}
	}
	f.o.Key, err = f.kdf.options(cmd.Flags())
	f.o.Key.KDF.Hash = f.o.Hash
	if f.o.Version == 2 && f.kdf.kdf != "pbkdf2" {
		f.o.Key.KDF.Hash = ""
	}
	return err
}

// A formatTarget is the files of a volume to be.
type formatTarget struct {
	data, header *os.File // the same but with --header
	dataSize     int64    // bytes
	headerSize   int64
	made         []string   // files that were made for it
	grown        []*os.File // files that were empty, as one is that a killed format has made
}

// close closes the files, and removes those that were made if the volume was not.
func (t *formatTarget) close(keep bool) {
	for _, f := range t.grown {
		if !keep {
			f.Truncate(0)
		}
	}
	for _, f := range []*os.File{t.data, t.header} {
		if f != nil {
			f.Close()
		}
	}
	if !keep {
		for _, path := range t.made {
			os.Remove(path)
		}
	}
}

// open opens the files, alone, and makes those that are not there.
func (f *formatFlags) open(image string) (t *formatTarget, err error) {
	t = &formatTarget{}
	defer func() {
		if err != nil {
			t.close(false)
		}
	}()
	if t.data, t.dataSize, err = t.openOrMake(image, f.create); err != nil {
		return t, err
	}
	if t.dataSize == 0 {
		return t, fmt.Errorf("%s is empty: --size makes it", image)
	}
	if f.header == "" {
		t.header, t.headerSize = t.data, t.dataSize
		return t, nil
	}
	f.o.Detached, f.o.Exact, f.o.DataSize = !f.exact, f.exact, t.dataSize
	need, err := f.o.HeaderSize()
	if err != nil {
		return t, misuse{error: err}
	}
	if t.header, t.headerSize, err = t.openOrMake(f.header, size.Format(need)); err != nil {
		return t, err
	}
	n := t.headerSize
	same, err := sameFile(t.header, t.data)
	switch {
	case err != nil:
		return t, err
	case same:
		return t, misusef("luks format: the header and the data are to be in one file: leave --header out")
	case n < need:
		return t, fmt.Errorf("%s has %d bytes, and the header takes %d: remove it, and it is made anew", f.header, n, need)
	}
	return t, nil
}

func (t *formatTarget) openOrMake(path, create string) (*os.File, int64, error) {
	if _, err := os.Stat(path); create != "" && errors.Is(err, fs.ErrNotExist) {
		n, err := size.Parse(create)
		if err != nil || n <= 0 {
			return nil, 0, misusef("luks format: --size %q is no size, such as 1G", create)
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, 0, err
		}
		t.made = append(t.made, path)
		if err := errors.Join(f.Truncate(n), luks.LockFile(f, true)); err != nil {
			f.Close()
			return nil, 0, err
		}
		return f, n, nil
	}
	f, n, err := openToChange(path, true)
	if err != nil || create == "" || path == "" {
		return f, n, err
	}
	want, err := size.Parse(create)
	st, e := f.Stat()
	switch {
	case err == nil && e == nil && n == 0 && want > 0 && st.Mode().IsRegular():
		n, err = want, f.Truncate(want)
		t.grown = append(t.grown, f)
	case t.data == nil && (err != nil || want != n): // of the data
		err = misusef("luks format: %s is there and has %d bytes: leave --size out", path, n)
	default:
		err = e
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, n, nil
}

// isNew tells whether a file was made, or was empty: it holds nothing.
func (t *formatTarget) isNew(f *os.File, path string) bool {
	return slices.Contains(t.made, path) || slices.Contains(t.grown, f)
}

func sameFile(a, b *os.File) (bool, error) {
	x, err := a.Stat()
	if err != nil {
		return false, err
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y), err
}

// formatResult tells what was made.
type formatResult struct {
	UUID       string `json:"uuid"`
	Version    int    `json:"version"`
	Keyslot    int    `json:"keyslot"`
	Cipher     string `json:"cipher"`
	SectorSize int    `json:"sector_size"`
	DataOffset int64  `json:"data_offset"` // bytes
	DataSize   int64  `json:"data_size"`   // bytes
}

func (c *cli) runFormat(ctx context.Context, image string, f *formatFlags) error {
	t, err := f.open(image)
	if err != nil {
		return err
	}
	formatted := false
	defer func() { t.close(formatted) }()
	if err := f.confirm(ctx, t, image); err != nil {
		return err
	}
	if f.volumeKey != "" {
		if f.o.VolumeKey, err = keystore.ReadFile(f.volumeKey); err != nil {
			return err
		}
		defer f.o.VolumeKey.Wipe()
	}
	pass, err := f.key.readNew(ctx, "new passphrase of "+image)
	if err != nil {
		return err
	}
	defer pass.Wipe()
	h, err := f.format(ctx, t, pass)
	if err != nil {
		return hintKey(fmt.Errorf("%s: %w", t.header.Name(), err))
	}
	formatted = true
	return c.printFormatted(h, t, f)
}

func (f *formatFlags) format(ctx context.Context, t *formatTarget, pass *secret.Buffer) (*luks.Header, error) {
	done := working("measuring the key derivation and making the keyslot")
	ed, v, err := luks.Format(ctx, t.header, t.headerSize, pass.Bytes(), f.o)
	done()
	if err != nil {
		return nil, err
	}
	v.Key.Wipe()
	if t.data != t.header && f.o.DataOffset == 0 {
		// The data begins there: a header would be taken for the one that counts.
		if err := luks.Erase(t.data, t.dataSize); err != nil {
			return nil, err
		}
	}
	if len(t.made) > 0 {
		if err := syncDirs(t.made); err != nil {
			return nil, err
		}
	}
	return ed.Header(), nil
}

func (c *cli) printFormatted(h *luks.Header, t *formatTarget, f *formatFlags) error {
	s := &h.Segments[0]
	r := formatResult{
		UUID: h.UUID, Version: h.Version, Keyslot: h.Keyslots[0].ID, Cipher: s.Encryption, SectorSize: s.SectorSize,
		DataOffset: s.Offset, DataSize: t.dataSize - s.Offset,
	}
	if f.exact {
		r.DataSize = t.dataSize
	}
	if c.json {
		return printJSON(r)
	}
	fmt.Printf("LUKS%d volume %s: %s of data, keyslot %d\n", r.Version, r.UUID, size.Format(r.DataSize), r.Keyslot)
	return nil
}

// confirm says what is lost. A file that was just made holds nothing.
func (f *formatFlags) confirm(ctx context.Context, t *formatTarget, image string) error {
	var lost []string
	for _, x := range []struct {
		file *os.File
		size int64
		path string
		what string
	}{{t.header, t.headerSize, f.header, "its content"}, {t.data, t.dataSize, image, "its content"}} {
		if x.path == "" || t.isNew(x.file, x.path) {
			continue
		}
		there, err := luks.Probe(x.file, x.size)
		if err != nil {
			return fmt.Errorf("%s: %w", x.path, err)
		}
		if there != "" {
			x.what = "its " + there + ", and with it the data"
		}
		lost = append(lost, fmt.Sprintf("%s would lose %s", x.path, x.what))
	}
	if lost == nil {
		return nil
	}
	return confirm(ctx, strings.Join(lost, "; "), f.yes)
}
