package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"

	"keyway/backend"
	"keyway/block"
	"keyway/control"
	"keyway/dm"
	"keyway/internal/secret"
	"keyway/keyslot/emul"
)

// An Image is a file system on a leaf device of this process, without a daemon. What it
// does is what a daemon does for a device, by the same code.
type Image struct {
	*files
	h *dm.Handle
	m *dm.Mapped

	mu     sync.Mutex // guards closed
	closed bool
}

// OpenImage opens the file system on a backend, read-only, behind an inline engine as
// --engine names it, "" for none. unclean: also one that was not unmounted. ctx is that
// of all its reads of metadata. The caller closes it.
func OpenImage(ctx context.Context, uri, engine string, unclean bool) (*Image, error) {
	return openImage(ctx, uri, engine, unclean, true)
}

// OpenImageToWrite is OpenImage for writing in place: nobody else has the image open.
func OpenImageToWrite(ctx context.Context, uri, engine string) (*Image, error) {
	i, err := openImage(ctx, uri, engine, false, false)
	return i, writeHint(err)
}

func openImage(ctx context.Context, uri, engine string, unclean, readOnly bool) (*Image, error) {
	spec, err := parseEngine(engine)
	if err != nil {
		return nil, err
	}
	d := &Daemon{log: slog.New(slog.DiscardHandler), fallback: processFallback()}
	if spec.name != "none" && spec.name != "cpu" && spec.emul.Wrapped() {
		// Nothing that this hardware wraps outlives the process.
		if d.emulated, err = newHardware(); err != nil {
			return nil, err
		}
	}
	name := uri
	if l, err := backend.Parse(uri); err == nil && strings.Contains(l.Place, "/") {
		name = path.Base(l.Place)
	}
	slots, stop, err := d.makeEngine(spec, name)
	if err != nil {
		return nil, err
	}
	dev, err := backend.Open(ctx, uri, backend.Options{ReadOnly: readOnly})
	if err != nil {
		if stop != nil {
			stop()
		}
		if errors.Is(err, block.ErrBusy) {
			err = hint(err, "a device of the daemon that has it open is named in its place: \"keyway ls\"")
		}
		return nil, err
	}
	m, err := dm.NewLeaf(name, dm.Leaf{Dev: dev, Text: uri, Engine: slots, Fallback: d.fallback, Closing: stop}, dm.Options{Immutable: true})
	if err != nil {
		return nil, err
	}
	i := &Image{m: m}
	if i.h, err = m.Open("fscrypt"); err == nil {
		i.files, err = openFiles(ctx, i.h, unclean)
	}
	if err != nil {
		return nil, errors.Join(err, i.Close(context.WithoutCancel(ctx)))
	}
	return i, nil
}

func newHardware() (*emul.Hardware, error) {
	fuses, err := secret.New(emul.FuseSize)
	if err != nil {
		return nil, err
	}
	defer fuses.Wipe()
	rand.Read(fuses.Bytes())
	return emul.NewHardware(fuses.Bytes())
}

// AddKey adds a master key of the bytes in b, which it wipes.
func (i *Image) AddKey(k control.FscryptKey, b *secret.Buffer) error {
	if k.Wrapped {
		b.Wipe()
		return hint(fmt.Errorf("key from %s: no engine of this process has the hardware that wrapped it", k.Source),
			"a device of the daemon that \"keyway key generate\" was asked of can serve it")
	}
	return i.addKey(k, b, nil)
}

// Close evicts all keys, and gives the backend back. After an error it may be called
// again.
func (i *Image) Close(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	if i.files != nil {
		if err := i.files.close(ctx); err != nil {
			return err
		}
	}
	i.closed = true
	var errs []error
	if i.h != nil {
		errs = append(errs, i.h.Close())
	}
	return errors.Join(append(errs, i.m.Remove(ctx, dm.RemoveOptions{}))...)
}
