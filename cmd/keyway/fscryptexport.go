package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"keyway/control"
	"keyway/internal/measure"
	"keyway/internal/plural"
	"keyway/internal/size"
)

func (c *cli) fscryptExport() *cobra.Command {
	var ff fsFlags
	var file, dir string
	var force bool
	cmd := &cobra.Command{
		Use:   "export VOLUME [PATH] [-o FILE | -C DIR]",
		Short: "Copy a tree out, decrypted: as a tar archive, or into a directory",
		Long: `Copy all that is beneath PATH, or one file, out of the file system: as a tar archive to
standard output or to FILE, or into the directory DIR, which must exist. Names, modes,
times, hard and symbolic links are kept; owners and set-user-ID bits into a DIR for root
only. What cannot be read is named, the rest is exported, and the exit status is 1; of a
file that fails in the middle an archive has zeros from there on, and a DIR nothing.

FILE appears when it is whole, and so does every file in DIR. Nothing that exists is
replaced without --force. Whatever names the file system has, nothing is written outside
of DIR, and no symbolic link in it is followed. Runs of zeros are holes in DIR.

` + volumeHelpText,
		Example: `  keyway fscrypt export phone.img /media -C out --key ./user.key
  keyway fscrypt export userdata --key ./user.key | zstd > userdata.tar.zst`,
		Args: volumeAndPath,
		RunE: func(cmd *cobra.Command, args []string) error {
			given := cmd.Flags().Changed
			r := control.Fscrypt{Paths: paths(args[1:])}
			e := &exporter{force: force, bar: &exportProgress{on: measure.Terminal(os.Stderr)}}
			switch {
			case given("output") && given("directory"):
				return misusef("fscrypt export: either --output or --directory")
			case force && !given("output") && !given("directory"):
				return misusef("fscrypt export: --force goes with --output or --directory")
			case given("output") && file != "-":
				return c.run(cmd, &ff, args[0], e, func(v volumeFS, ctx context.Context) error { return e.toFile(ctx, v, r, file) })
			case given("directory"):
				return c.run(cmd, &ff, args[0], e, func(v volumeFS, ctx context.Context) error { return e.toDir(ctx, v, r, dir) })
			case measure.Terminal(os.Stdout) && !given("output"):
				return misuse{fmt.Errorf("fscrypt export: an archive does not go to a terminal"), "-o FILE writes a file, -C DIR into a directory"}
			}
			return toStdout(func(write func([]byte) error) error {
				return c.run(cmd, &ff, args[0], e, func(v volumeFS, ctx context.Context) error { return e.read(ctx, v, r, write) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "output", "o", "", "`file` for the archive, - for standard output")
	f.StringVarP(&dir, "directory", "C", "", "`directory` to put the files into")
	f.BoolVar(&force, "force", false, "replace files that exist")
	ff.add(f, "key")
	cmd.ValidArgsFunction = c.completeVolume(&ff, 1)
	return c.withTimeout(cmd, giveUpReading)
}

// run opens the file system for f, and closes it.
func (c *cli) run(cmd *cobra.Command, ff *fsFlags, name string, e *exporter, f func(v volumeFS, ctx context.Context) error) (err error) {
	v, err := c.openFS(cmd, ff, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close(cmd.Context())) }()
	ctx, stop := c.limited(cmd.Context())
	defer stop()
	e.t.line = e.bar.end
	err = f(v, ctx)
	e.bar.end()
	if err != nil {
		return cause(ctx, err)
	}
	return e.t.err()
}

// An exporter copies a tree out of a file system.
type exporter struct {
	force bool
	t     troubled
	bar   *exportProgress
}

// read gives the archive to write.
func (e *exporter) read(ctx context.Context, v volumeFS, r control.Fscrypt, write func([]byte) error) error {
	_, err := v.export(ctx, r, control.FscryptSink{
		Data: func(p []byte) error {
			e.bar.step(int64(len(p)))
			return write(p)
		},
		Problem: e.t.problem,
	})
	return err
}

// toFile writes the archive to a file that appears when it is whole. What is no regular
// file, a FIFO for one, is written to as it is.
func (e *exporter) toFile(ctx context.Context, v volumeFS, r control.Fscrypt, name string) (err error) {
	st, err := os.Stat(name)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return e.toOpen(ctx, v, r, name)
	case err == nil && !e.force:
		return existsError(name)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".keyway-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once it has its name, this one is gone
	defer f.Close()
	if err := e.fill(ctx, v, r, f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if e.force {
		return os.Rename(f.Name(), name)
	}
	if err := os.Link(f.Name(), name); errors.Is(err, fs.ErrExist) {
		return existsError(name)
	} else if err != nil {
		return err
	}
	return nil
}

func (e *exporter) toOpen(ctx context.Context, v volumeFS, r control.Fscrypt, name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(e.fill(ctx, v, r, f), f.Close())
}

func (e *exporter) fill(ctx context.Context, v volumeFS, r control.Fscrypt, f *os.File) error {
	w := bufio.NewWriterSize(f, 256<<10)
	err := e.read(ctx, v, r, func(p []byte) error {
		_, err := w.Write(p)
		return err
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

func existsError(name string) error {
	return &control.Error{Message: fmt.Sprintf("%s exists", name), Hint: "--force replaces it"}
}

// toDir unpacks the archive as it comes.
func (e *exporter) toDir(ctx context.Context, v volumeFS, r control.Fscrypt, dir string) (err error) {
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	u := newUnpacker(fd, e.force, e.t.problem)
	defer func() { err = errors.Join(err, u.close()) }()
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := u.unpack(out)
		out.CloseWithError(errors.Join(err, errUnpacked))
		done <- err
	}()
	// What could not be read to its end is told before its last bytes come.
	tell := e.t.problem
	err = func() error {
		_, err := v.export(ctx, r, control.FscryptSink{
			Data: func(p []byte) error {
				e.bar.step(int64(len(p)))
				_, err := in.Write(p)
				return err
			},
			Problem: func(p control.FscryptProblem) error {
				u.incomplete(p.Path)
				return tell(p)
			},
		})
		return err
	}()
	if errors.Is(err, errUnpacked) {
		err = nil // the reason is the unpacker's
	}
	in.CloseWithError(err) // nil: the end
	unpacked := <-done
	if err != nil {
		return err
	}
	return unpacked
}

var errUnpacked = errors.New("no more is wanted")

// exportProgress tells on a terminal how far it is.
type exportProgress struct {
	on    bool
	bytes int64
	begin time.Time
	said  time.Time
}

func (p *exportProgress) step(n int64) {
	p.bytes += n
	if !p.on {
		return
	}
	now := time.Now()
	if p.begin.IsZero() {
		p.begin, p.said = now, now
	}
	if now.Sub(p.said) > 200*time.Millisecond {
		p.said = now
		speed := int64(float64(p.bytes) / now.Sub(p.begin).Seconds())
		fmt.Fprintf(os.Stderr, "\r%-60s", fmt.Sprintf("%s exported, %s/s, %s", size.Format(p.bytes&^1023), size.Format(speed&^1023), plural.Of(int(now.Sub(p.begin).Seconds()), "second")))
	}
}

func (p *exportProgress) end() {
	if p.on && !p.said.Equal(p.begin) {
		fmt.Fprintf(os.Stderr, "\r%60s\r", "")
	}
}
