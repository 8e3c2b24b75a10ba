package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"keyway/internal/secret"
	"keyway/luks"
)

// A luksEdit is a header that is open to be changed. Nobody else changes it meanwhile.
type luksEdit struct {
	*luks.Editor
	file *os.File
	path string
}

func (e *luksEdit) close() { e.file.Close() }

// An editFlags says which header a command changes.
type editFlags struct{ header, policy string }

func (e *editFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&e.header, "header", "", "`file` with the header, where it is apart from IMAGE")
	cmd.Flags().StringVar(&e.policy, "header-policy", permissive, "what a header may ask for: `strict` or permissive")
}

func (e *editFlags) path(image string) string {
	if e.header != "" {
		return e.header
	}
	return image
}

// open opens the header of image for changes and locks it. A file that holds a header
// alone will do as image. The caller closes it.
func (e *editFlags) open(image string) (*luksEdit, error) {
	p, err := luks.ParsePolicy(e.policy)
	if err != nil {
		return nil, misusef("--header-policy: %w", err)
	}
	path := e.path(image)
	f, n, err := openToChange(path, false)
	if err != nil {
		return nil, err
	}
	ed, err := luks.Edit(f, n, luks.Options{Policy: p, Data: -1})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &luksEdit{ed, f, path}, nil
}

// openToChange opens a file or block device for writing, locks it, and tells its size
// in bytes. alone wants that nobody else uses it at all; else the kernel may have a
// block device open under a volume, as while cryptsetup changes a key.
func openToChange(path string, alone bool) (*os.File, int64, error) {
	flags := os.O_RDWR
	if st, err := os.Stat(path); err != nil {
		return nil, 0, err
	} else if alone && st.Mode().Type() == os.ModeDevice {
		flags |= unix.O_EXCL // of a block device: not mounted, not under a mapping
	}
	f, n, err := openSizedAs(path, flags)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, 0, fmt.Errorf("%w: end what uses it first", err)
		}
		return nil, 0, err
	}
	err = luks.LockFile(f, true)
	if err == nil {
		err = notInQEMU(f)
	}
	if err != nil {
		f.Close()
		return nil, 0, hintKey(err)
	}
	return f, n, nil
}

// notInQEMU reports an error if QEMU has the image open: it locks bytes 100 to 299
// and leaves flock alone.
func notInQEMU(f *os.File) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 200}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil || l.Type == unix.F_UNLCK {
		return nil // a file system without locks is used without
	}
	return fmt.Errorf("%s: %w, such as QEMU: end that use first", f.Name(), luks.ErrLocked)
}

// tries is how often a terminal is asked for a passphrase that has to be right.
const tries = 3

// unlock asks for a passphrase and opens a keyslot of the header that was read from
// path; a terminal is asked again.
func unlock(ctx context.Context, path string, h *luks.Header, r io.ReaderAt, k *keyFlags, prompt string, slot int) (*luks.Volume, error) {
	for n := 1; ; n++ {
		pass, err := k.read(ctx, prompt)
		if err != nil {
			return nil, err
		}
		done := working("trying the passphrase")
		v, err := h.Open(ctx, r, pass.Bytes(), slot)
		done()
		pass.Wipe()
		if errors.Is(err, luks.ErrPassphrase) && n < tries && k.asks() {
			warn("%v", err)
			continue
		}
		if err != nil {
			return nil, hintKey(fmt.Errorf("%s: %w", path, err))
		}
		return v, nil
	}
}

// asks reports whether a person is asked.
func (k *keyFlags) asks() bool { return !k.given() && isTerminal(os.Stdin) }

// readNew reads a passphrase that will have to be typed again some day: a terminal is
// asked twice. The caller wipes it.
func (k *keyFlags) readNew(ctx context.Context, prompt string) (*secret.Buffer, error) {
	pass, err := k.read(ctx, prompt)
	if err != nil || !k.asks() {
		return pass, err
	}
	again, err := k.read(ctx, prompt+", again")
	if err != nil {
		pass.Wipe()
		return nil, err
	}
	defer again.Wipe()
	if !pass.Equal(again.Bytes()) {
		pass.Wipe()
		return nil, errors.New("the two passphrases differ: nothing is changed")
	}
	return pass, nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// confirm asks on a terminal whether to go on, having said what is lost; without one,
// yes must have been given.
func confirm(ctx context.Context, lost string, yes bool) error {
	if yes {
		return nil
	}
	if !isTerminal(os.Stdin) {
		return misuse{error: errors.New(lost), way: "nothing is changed: --yes goes on without asking"}
	}
	fmt.Fprintf(os.Stderr, "%s.\nType yes to go on: ", lost)
	answer := make(chan string, 1)
	go func() {
		// The line alone: what follows is a passphrase.
		line, _ := bufio.NewReaderSize(oneByte{os.Stdin}, 16).ReadString('\n')
		answer <- line
	}()
	select {
	case a := <-answer:
		if strings.EqualFold(strings.TrimSpace(a), "yes") {
			return nil
		}
		return errors.New("not confirmed: nothing is changed")
	case <-ctx.Done():
		return hintKey(ctx.Err())
	}
}

// oneByte reads a byte at a time, so that a buffer takes no more than it needs.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:min(1, len(b))]) }

// working says on a terminal what takes long, and for how long it has; the function
// that it returns takes that away.
func working(what string) (done func()) {
	if !isTerminal(os.Stderr) {
		return func() {}
	}
	end, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		begin := time.Now()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(os.Stderr, "\r%s ... %.0f s ", what, time.Since(begin).Seconds())
				shown = true
			case <-end:
				if shown {
					fmt.Fprint(os.Stderr, "\r\x1b[K")
				}
				return
			}
		}
	}()
	return func() { close(end); <-gone }
}

// syncDirs makes the names of new files durable.
func syncDirs(paths []string) error {
	for _, p := range paths {
		d, err := os.Open(filepath.Dir(p))
		if err != nil {
			return err
		}
		err = d.Sync()
		d.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
