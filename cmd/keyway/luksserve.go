package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keyway/control"
	kw "keyway/internal/daemon"
	"keyway/internal/keysource"
	"keyway/internal/secret"
	"keyway/internal/size"
	"keyway/luks"
)

// A volumeFlags says which volume is opened, and how.
type volumeFlags struct {
	header, policy string
	exact          bool
	key            keyFlags
	slot           int
}

func (v *volumeFlags) add(f *pflag.FlagSet) {
	f.StringVar(&v.header, "header", "", "`file` with the header, where it is apart from the data")
	v.key.add(f)
	f.BoolVar(&v.exact, "exact-size", false, "the volume was formatted with --exact-size: the image follows the file of --header")
	f.IntVar(&v.slot, "key-slot", luks.AnySlot, "try this `keyslot` alone (default: all, the preferred first)")
	f.StringVar(&v.policy, "header-policy", permissive, "what a header may ask for: `strict` or permissive")
}

// check refuses values that cannot be.
func (v *volumeFlags) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("key-slot") && (v.slot < 0 || v.slot > 31) {
		return misusef("%s: --key-slot %d is not 0 to 31", cmd.Name(), v.slot)
	}
	if v.exact && v.header == "" {
		return misusef("%s: --exact-size needs --header: the file with the header", cmd.Name())
	}
	return nil
}

// A volume is one that was opened for a daemon.
type volume struct {
	luksImage
	*luks.Volume
	path string // of the data, absolute
}

func (v *volume) close() {
	v.Key.Wipe()
	v.file.Close()
}

// open reads the header of image, asks for the passphrase and opens a keyslot. What
// keeps it from being written to does not keep it from being read, if that is safe. The
// caller closes the volume.
func (v *volumeFlags) open(ctx context.Context, image string, readOnly bool) (*volume, error) {
	path, err := filepath.Abs(image)
	if err != nil {
		return nil, err
	}
	l, err := openLUKS(image, v.header, v.policy, v.exact, false)
	if err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened {
			l.file.Close()
		}
	}()
	// Before anybody types: what would be refused in any case.
	usable := l.Writable
	if readOnly {
		usable = l.Readable
	}
	if err := usable(); err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	got, err := unlock(ctx, image, l.Header, l.file, &v.key, "passphrase of "+image, v.slot)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		got.Key.Wipe()
		return nil, err
	}
	if l.Unbound(got.Slot) {
		got.Key.Wipe()
		return nil, hintKey(fmt.Errorf("%s: keyslot %d %w", image, got.Slot, luks.ErrUnbound))
	}
	opened = true
	return &volume{l, got, path}, nil
}

// deviceName makes the name of a device of that of a file.
func deviceName(path string) string {
	name := filepath.Base(path)
	name = strings.TrimSuffix(name, filepath.Ext(name))
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, name)
	name = strings.TrimLeft(name, ".-")
	if name == "" {
		return "volume"
	}
	return name[:min(len(name), 48)]
}

// serveVolume makes the daemon at socket serve an opened volume at address, "" for a
// socket beside the daemon's, and returns what a user needs to know.
func (c *cli) serveVolume(ctx context.Context, v *volume, socket, address string, readOnly bool) (string, error) {
	client := &control.Client{Socket: socket}
	name := deviceName(v.path)
	if address == "" {
		address = "unix:" + filepath.Join(filepath.Dir(socket), name+".sock")
	}
	ch, err := v.give(ctx, client, control.Create{Name: name, ReadOnly: readOnly})
	if err != nil {
		return "", err
	}
	for _, w := range ch.Warnings {
		warn("%s", w)
	}
	e, err := client.AddExport(ctx, control.Export{Name: name, Device: name, NBD: address, ReadOnly: readOnly})
	if err != nil {
		return "", err
	}
	d, err := client.Device(ctx, name)
	if err != nil {
		return "", err
	}
	return volumeHelp(v, d, e, socket), nil
}

func volumeHelp(v *volume, d control.Device, e control.Export, socket string) string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %-18s %s\n", what, fmt.Sprintf(format, args...))
	}
	mode := ""
	if d.ReadOnly {
		mode = " read-only"
	}
	fmt.Fprintf(&b, "The data of %s (LUKS%d, %s, keyslot %d) is served%s as device %q.\n\n", v.path, v.Version, size.Format(d.Size), v.Slot, mode, d.Name)
	line("what it is", "nbdinfo '%s'", e.URI)
	line("copy it out", "nbdcopy '%s' plain.img", e.URI)
	drive := "format=raw,if=virtio"
	if d.ReadOnly {
		drive += ",read-only=on"
	}
	line("as a VM's disk", "qemu-system-x86_64 ... -drive file='%s',%s", e.URI, drive)
	if path, ok := strings.CutPrefix(e.NBD, "unix:"); ok {
		line("in this kernel", "nbd-client -unix %s -name %s /dev/nbd0     (as root, after modprobe nbd)", path, e.Name)
	}
	line("what there is", "keyway --socket %s ls --tree", socket)
	b.WriteString("\nCtrl-C ends it when requests under way are answered, and wipes the key.\n")
	return b.String()
}

// A keyFlags says where a passphrase comes from.
type keyFlags struct {
	file string
	fd   int
	// Of the bytes of either, as texts of sizes: which are the passphrase.
	offset, size string
	flags        string // their names without --, up to "offset" and "size"
}

func (k *keyFlags) add(f *pflag.FlagSet) { k.addNamed(f, "key", "the passphrase") }

// addNamed adds --NAME-file and --NAME-fd.
func (k *keyFlags) addNamed(f *pflag.FlagSet, name, what string) {
	f.StringVar(&k.file, name+"-file", "", "`file` whose bytes are "+what+", - for standard input to its end")
	f.IntVar(&k.fd, name+"-fd", -1, "open `descriptor` whose bytes, to the end, are "+what)
	k.flags = name + "file-"
	f.StringVar(&k.offset, k.flags+"offset", "", "`bytes` of them to skip first")
	f.StringVar(&k.size, k.flags+"size", "", "how many `bytes` of them to take (default: to the end)")
}

// part is which of the bytes of a file or descriptor are the passphrase.
func (k *keyFlags) part() (p keysource.Part, err error) {
	for _, x := range []struct {
		name, text string
		least      int64
		to         *int64
	}{{"offset", k.offset, 0, &p.Offset}, {"size", k.size, 1, &p.Size}} {
		if x.text == "" {
			continue
		}
		if !k.given() {
			return p, misusef("--%s%s is of a key file or a descriptor, and none is named", k.flags, x.name)
		}
		if *x.to, err = size.Parse(x.text); err != nil || *x.to < x.least {
			return p, misusef("--%s%s %q is no number of bytes", k.flags, x.name, x.text)
		}
	}
	return p, nil
}

func (k *keyFlags) given() bool { return k.file != "" || k.fd >= 0 }

// read reads a passphrase: of the descriptor, of the file, or a line of a terminal or
// of standard input. The caller wipes it.
func (k *keyFlags) read(ctx context.Context, prompt string) (*secret.Buffer, error) {
	part, err := k.part()
	switch {
	case err != nil:
		return nil, err
	case k.fd >= 0 && k.file != "":
		return nil, misusef("a key file and a descriptor are two passphrases: one has to do")
	case k.fd < 0:
		pass, err := readPassphrase(ctx, k.file, part, prompt)
		return pass, hintKey(err)
	}
	in := os.NewFile(uintptr(k.fd), "descriptor")
	if in == nil {
		return nil, misusef("descriptor %d is not open", k.fd)
	}
	defer in.Close()
	pass, err := readSecret(ctx, in, part, fmt.Sprintf("descriptor %d", k.fd))
	return pass, hintKey(err)
}

// imageHint adds to the failure of a daemon's start what to do for an image.
func imageHint(err error, v *volume) error {
	if v == nil || !strings.Contains(err.Error(), "somebody listens there already") {
		return err
	}
	return &control.Error{Message: err.Error(), Hint: "a daemon runs already: \"keyway luks open\" gives it the image; \"keyway --socket PATH serve\" starts another"}
}

// imageState makes a state directory for as long as an image is served, and removes
// those that others, who were killed, have left beside it.
func imageState(socket string) (string, error) {
	if socket == "" {
		return "", errors.New("no control socket: set --socket, $KEYWAY_SOCKET or $XDG_RUNTIME_DIR")
	}
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	others, err := filepath.Glob(filepath.Join(dir, imageStatePrefix+"*"))
	if err != nil {
		return "", err
	}
	for _, other := range others {
		// Nobody can use what cannot be removed; it is in nobody's way either.
		if kw.Abandoned(other) {
			os.RemoveAll(other)
		}
	}
	return os.MkdirTemp(dir, imageStatePrefix)
}

const imageStatePrefix = "serve-"
