package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keyway/backend"
	"keyway/control"
	"keyway/internal/daemon"
)

func (c *cli) fscrypt() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fscrypt",
		Short: "Files of ext4 and f2fs file systems, encrypted by fscrypt or not: ls, cat, status, export, write",
		Long: `Read files of ext4 and f2fs file systems that fscrypt encrypts, through the block
stack: contents are read by requests that carry the file's key and the number of its
data units, so that inline engines decrypt them, or software in their place. Nothing is
written but by "keyway fscrypt write", which replaces contents in place. "keyway explain
VOLUME --file PATH" tells for a byte of a file where it lies and who decrypts it.

` + volumeHelpText,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misusef("fscrypt: a command is missing: ls, cat, status, export or write")
		},
	}
	cmd.AddCommand(c.fscryptLs(), c.fscryptCat(), c.fscryptStatus(), c.fscryptExport(), c.fscryptWrite())
	return cmd
}

// volumeHelpText says what a VOLUME and a KEY are; every command that takes them has it.
const volumeHelpText = `VOLUME is the name of a device of the daemon, which then does the work, or a path or
backend URI of an image, which this process opens, read-only and without a daemon,
behind the engine of --engine. A word without / and : is a device if the daemon has one
of that name, else a file.

KEY is [DESCRIPTOR=|wrapped=]SOURCE: a master key, as it was added to the kernel, from a
source as "keyway key add --from" takes it: ./user.key, file:PATH, fd:N, - (standard
input), prompt:, exec:PROGRAM, age:FILE?identity=FILE, ... It serves the v2 policies of
its identifier and the v1 policies of its descriptor, which is its hash, or the
DESCRIPTOR of 16 hex digits where it was added under another. wrapped= is a
hardware-wrapped key of the daemon's emulated engines. Several --key give several keys.
Without the key of a directory its names are those that Linux shows then.`

// volumeFS is a file system that commands read, wherever it is opened.
type volumeFS interface {
	list(ctx context.Context, r control.Fscrypt, s control.FscryptSink) error
	cat(ctx context.Context, r control.Fscrypt, s control.FscryptSink) (control.FscryptTotals, error)
	export(ctx context.Context, r control.Fscrypt, s control.FscryptSink) (control.FscryptTotals, error)
	status(ctx context.Context, r control.Fscrypt) (control.FscryptStatus, error)
	explain(ctx context.Context, r control.Fscrypt) (control.FscryptExplanation, error)
	write(ctx context.Context, r control.FscryptWrite, data io.Reader) error
	// close wipes the keys and gives everything back. It may be called again.
	close(ctx context.Context) error
}

// fsFlags say how a file system is opened, and with which keys.
type fsFlags struct {
	keys    []string
	engine  string
	trace   string // file; "": none
	unclean bool
	write   bool
}

func (f *fsFlags) add(fs *pflag.FlagSet, keyFlag string) {
	fs.StringArrayVar(&f.keys, keyFlag, nil, "`KEY` as above; may be given several times")
	fs.StringVar(&f.engine, "engine", "", "inline engine in front of an image: none, cpu[?slots=N], ufs, cqhci or fmp[?OPTION=VALUE&...]")
	fs.StringVar(&f.trace, "trace", "", "write down what keyslots are used for, in a new `file` that \"keyway slots\" reads; of an image")
	if f.write {
		return // to what was not unmounted, never
	}
	fs.BoolVar(&f.unclean, "unclean", false, "read a file system that was not unmounted as it is: files may be old, or not fit together")
}

// open opens the file system of a VOLUME. The caller closes it.
func (c *cli) openFS(cmd *cobra.Command, f *fsFlags, name string) (volumeFS, error) {
	if name == "" {
		return nil, misusef("%s: VOLUME is empty", cmd.CommandPath())
	}
	keys, err := parseMasterKeys(f.keys)
	if err != nil {
		return nil, err
	}
	uri, err := c.imageOf(cmd, f, name)
	if err != nil {
		return nil, err
	}
	ctx := cmd.Context()
	if uri == "" && f.trace != "" {
		return nil, misuse{
			error: fmt.Errorf("%s: --trace: %q is a device of the daemon", cmd.CommandPath(), name),
			way:   "\"keyway serve --trace FILE\" traces all that the daemon does",
		}
	}
	if uri == "" {
		if err := readMasterKeys(ctx, keys); err != nil {
			return nil, err
		}
		return &remoteFS{client: c.client(), device: name, unclean: f.unclean, keys: keys}, nil
	}
	// Before anybody types: what cannot be opened.
	l, err := f.image(ctx, uri)
	if err != nil {
		return nil, err
	}
	v := &localFS{image: l}
	if err := readMasterKeys(ctx, keys); err != nil {
		return nil, errors.Join(err, v.close(ctx))
	}
	for _, k := range keys {
		if err := l.AddKey(k.FscryptKey, k.bytes); err != nil {
			wipeMasterKeys(keys)
			return nil, errors.Join(err, v.close(ctx))
		}
	}
	return f.traceFS(ctx, v)
}

func (f *fsFlags) image(ctx context.Context, uri string) (*daemon.Image, error) {
	if f.write {
		return daemon.OpenImageToWrite(ctx, uri, f.engine)
	}
	return daemon.OpenImage(ctx, uri, f.engine, f.unclean)
}

// imageOf returns the backend URI of an image, "" if name is a device of the daemon.
func (c *cli) imageOf(cmd *cobra.Command, f *fsFlags, name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	switch {
	case backend.IsURI(name):
		return daemon.AbsURI(name, dir), nil
	case strings.ContainsAny(name, "/"), f.engine != "":
		return fileURI(name)
	}
	_, err = c.client().Device(cmd.Context(), name)
	if err == nil {
		return "", nil
	}
	if st, e := os.Stat(name); e == nil && !st.IsDir() && !c.given && cmd.Context().Err() == nil {
		return fileURI(name)
	}
	if e, ok := errors.AsType[*control.Error](err); ok && !strings.HasPrefix(e.Hint, "did you mean") {
		return "", &control.Error{Message: e.Message, Hint: strings.TrimPrefix(e.Hint+"; an image is a file here, or a path with a /", "; "), Status: e.Status}
	}
	return "", err
}

func fileURI(path string) (string, error) {
	abs, err := filepath.Abs(path)
	return daemon.PathURI(abs), err
}

// localFS is an image that this process has open.
type localFS struct{ image *daemon.Image }

func (l *localFS) list(ctx context.Context, r control.Fscrypt, s control.FscryptSink) error {
	return l.image.List(ctx, r, s)
}

func (l *localFS) cat(ctx context.Context, r control.Fscrypt, s control.FscryptSink) (control.FscryptTotals, error) {
	return l.image.Cat(ctx, r, s)
}

func (l *localFS) export(ctx context.Context, r control.Fscrypt, s control.FscryptSink) (control.FscryptTotals, error) {
	return l.image.Export(ctx, r, s)
}

func (l *localFS) status(ctx context.Context, r control.Fscrypt) (control.FscryptStatus, error) {
	return l.image.Status(ctx, r)
}

func (l *localFS) explain(ctx context.Context, r control.Fscrypt) (control.FscryptExplanation, error) {
	return l.image.Explain(ctx, r)
}

func (l *localFS) close(ctx context.Context) error { return l.image.Close(context.WithoutCancel(ctx)) }

// remoteFS is a device of the daemon, which opens its file system for each call.
type remoteFS struct {
	client  *control.Client
	device  string
	unclean bool
	keys    []*masterKey
}

// with calls f with the request that carries the keys, and the pipe that has their
// bytes, nil for none.
func (m *remoteFS) with(r control.Fscrypt, f func(r control.Fscrypt, keys *os.File) error) error {
	r.Unclean = m.unclean
	for _, k := range m.keys {
		r.Keys = append(r.Keys, k.FscryptKey)
	}
	if len(m.keys) == 0 {
		return f(r, nil)
	}
	// All keys fit in a pipe, so that nobody has to wait.
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	for _, k := range m.keys {
		if _, err := in.Write(k.bytes.Bytes()); err != nil {
			in.Close()
			return fmt.Errorf("pipe for the keys: %w", err)
		}
	}
	if err := in.Close(); err != nil {
		return err
	}
	return f(r, out)
}

func (m *remoteFS) list(ctx context.Context, r control.Fscrypt, s control.FscryptSink) error {
	return m.with(r, func(r control.Fscrypt, keys *os.File) error {
		return m.client.FscryptList(ctx, m.device, r, keys, s)
	})
}

func (m *remoteFS) cat(ctx context.Context, r control.Fscrypt, s control.FscryptSink) (t control.FscryptTotals, err error) {
	err = m.with(r, func(r control.Fscrypt, keys *os.File) error {
		t, err = m.client.FscryptCat(ctx, m.device, r, keys, s)
		return err
	})
	return t, err
}

func (m *remoteFS) export(ctx context.Context, r control.Fscrypt, s control.FscryptSink) (t control.FscryptTotals, err error) {
	err = m.with(r, func(r control.Fscrypt, keys *os.File) error {
		t, err = m.client.FscryptExport(ctx, m.device, r, keys, s)
		return err
	})
	return t, err
}

func (m *remoteFS) status(ctx context.Context, r control.Fscrypt) (x control.FscryptStatus, err error) {
	err = m.with(r, func(r control.Fscrypt, keys *os.File) error {
		x, err = m.client.FscryptStatus(ctx, m.device, r, keys)
		return err
	})
	return x, err
}

func (m *remoteFS) explain(ctx context.Context, r control.Fscrypt) (x control.FscryptExplanation, err error) {
	err = m.with(r, func(r control.Fscrypt, keys *os.File) error {
		x, err = m.client.FscryptExplain(ctx, m.device, r, keys)
		return err
	})
	return x, err
}

func (m *remoteFS) close(context.Context) error {
	wipeMasterKeys(m.keys)
	return nil
}
