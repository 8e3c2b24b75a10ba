package daemon

import (
	"context"
	"errors"
	"fmt"

	"keyway/backend"
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/control"
	"keyway/dm"
	"keyway/internal/nearest"
	"keyway/keyslot"
	"keyway/keystore"
)

// env resolves what table text names. before, if not nil, is called with the
// name of each device before it is opened: a restoration brings it up.
type env struct {
	d      *Daemon
	before func(ctx context.Context, name string) error
}

var _ dm.Env = env{}

// Open opens a device, or the backend that a URI or a path names.
func (e env) Open(ctx context.Context, name string, readOnly bool) (block.Device, error) {
	if backend.IsURI(name) {
		return e.d.openImplicit(ctx, name, readOnly)
	}
	if e.before != nil {
		if err := e.before(ctx, name); err != nil {
			return nil, err
		}
	}
	d := e.d
	d.mu.Lock()
	v := d.devices[name]
	if v == nil || v.making {
		err := d.noDevice(name)
		d.mu.Unlock()
		return nil, err
	}
	m, problem := v.m, v.problem
	d.mu.Unlock()
	if m == nil {
		return nil, fmt.Errorf("device %q does not work: %s", name, problem)
	}
	if !m.State().Live {
		if problem == "" {
			problem = "\"keyway load\" and \"keyway resume\" give it one"
		}
		return nil, fmt.Errorf("device %q has no live table: %s", name, problem)
	}
	return m.Open("table")
}

// Key takes a key of the store. One that was made from table text goes with its last
// table, which is an event.
func (e env) Key(_ context.Context, ref dm.KeyRef, c blkcrypto.Config, weak bool) (*blkcrypto.Key, func(context.Context) error, error) {
	k, release, err := e.d.keys.Use(ref.Name, ref.Size, c, weak)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		var names []string
		for _, k := range e.d.keys.List() {
			names = append(names, k.Name)
		}
		if near := nearest.Of(ref.Name, names); near != "" {
			err = hint(err, fmt.Sprintf("did you mean %q?", near))
		} else {
			err = hint(err, fmt.Sprintf("\"keyway key add %s --mode %v --file FILE\" adds it", ref.Name, c.Mode))
		}
	case errors.Is(err, keystore.ErrMissing):
		err = hint(err, fmt.Sprintf("\"keyway key add %s --mode %v ...\" gives them back; the devices that wait for it then come to life", ref.Name, c.Mode))
	}
	if st, ok := e.d.keys.Get(ref.Name); err == nil && ok && st.Auto {
		return k, e.d.telling(ref.Name, release), nil
	}
	return k, release, err
}

// telling is release of a key, and an event if the key is forgotten by that.
func (d *Daemon) telling(key string, release func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		was, listed := d.keys.Get(key)
		err := release(ctx)
		if _, still := d.keys.Get(key); listed && !was.Pending && !still {
			d.events.publish(control.Event{Kind: control.EventKeyEvicted, Key: key, Detail: "with the last table that used it"})
		}
		return err
	}
}

// Fallback is one for the process.
func (e env) Fallback() *keyslot.Manager { return e.d.fallback }

// An implicitLeaf is a backend that tables name by URI. All tables that name
// it share it; it goes with the last of them.
type implicitLeaf struct {
	made chan struct{} // closed when m or err is there
	gone chan struct{} // closed when it has been removed
	m    *dm.Mapped
	err  error
}

func (d *Daemon) openImplicit(ctx context.Context, uri string, readOnly bool) (block.Device, error) {
	for {
		d.mu.Lock()
		l := d.implicit[uri]
		mine := l == nil
		if mine {
			l = &implicitLeaf{made: make(chan struct{}), gone: make(chan struct{})}
			d.implicit[uri] = l
		}
		d.mu.Unlock()
		if mine {
			return d.makeImplicit(ctx, uri, readOnly, l)
		}
		select {
		case <-l.made:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for backend %q: %w", uri, context.Cause(ctx))
		}
		if l.err != nil {
			return nil, l.err
		}
		h, err := l.m.Open("table")
		if err == nil {
			return h, nil
		}
		// Its last user has just let it go; the medium is free when it is gone.
		select {
		case <-l.gone:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for backend %q: %w", uri, context.Cause(ctx))
		}
	}
}

// makeImplicit opens the backend and hands out its first handle.
func (d *Daemon) makeImplicit(ctx context.Context, uri string, readOnly bool, l *implicitLeaf) (h *dm.Handle, err error) {
	forget := func() {
		d.mu.Lock()
		if d.implicit[uri] == l {
			delete(d.implicit, uri)
		}
		d.mu.Unlock()
		close(l.gone)
	}
	defer func() {
		if l.err = err; err != nil && l.m == nil {
			forget()
		}
		close(l.made)
	}()
	dev, err := backend.Open(ctx, uri, backend.Options{ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	m, err := dm.NewLeaf(uri, dm.Leaf{Dev: dev, Text: uri, Fallback: d.fallback}, dm.Options{
		Warn: func(_ *dm.Mapped, err error) { d.log.Warn("backend", "uri", uri, "err", err) },
		Gone: func(*dm.Mapped) { forget() },
	})
	if err != nil {
		return nil, err
	}
	l.m = m
	if h, err = m.Open("table"); err != nil {
		return nil, err
	}
	// It goes with its last user.
	return h, m.Remove(ctx, dm.RemoveOptions{Deferred: true})
}

func nearestName(name string, names []string) string { return nearest.Of(name, names) }
