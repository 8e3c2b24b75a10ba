package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"keyway/block"
	"keyway/control"
	"keyway/dm"
	"keyway/fscrypt/volume"
)

// fscryptWrite answers POST /v1/devices/{name}/fscrypt/write: as fscryptCall, of a file
// system that nobody else has in use. What is to be written is the body, which is asked
// for when nothing forbids the write any more.
func (d *Daemon) fscryptWrite(w http.ResponseWriter, r *http.Request) (err error) {
	if err := d.enterCall(); err != nil {
		return err
	}
	defer d.leaveCall()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(d.ending, func() { cancel(errEnding) })()
	conn := http.NewResponseController(w)
	defer context.AfterFunc(ctx, func() { // a client that sends nothing holds up nobody
		conn.SetReadDeadline(time.Now())
		conn.SetWriteDeadline(time.Now().Add(lastWords))
	})()

	var in control.FscryptWrite
	if err := decode(strings.NewReader(r.URL.Query().Get("request")), &in); err != nil {
		return err
	}
	if in.Length != r.ContentLength {
		return badRequest{fmt.Errorf("%d bytes are to be written, and the body has %d", in.Length, r.ContentLength)}
	}
	keys, err := fscryptKeys(r, in.Keys)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	done, err := d.enterWrite(r.PathValue("name"))
	if err != nil {
		return err
	}
	defer done()
	x, end, err := d.openFilesOf(ctx, r.PathValue("name"), "write", control.Fscrypt{Keys: in.Keys}, keys)
	if err != nil {
		return writeHint(err)
	}
	ended := false
	defer func() {
		if !ended {
			end() // a panic, which net/http survives, leaves no key behind
		}
	}()
	out, err := x.Write(ctx, in, r.Body)
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	ended = true
	if err = errors.Join(err, end()); err == nil {
		reply(w, http.StatusOK, out)
	}
	return err
}

// enterWrite lets one call at a time write to the file system on a device, if nobody
// else is seen to use it. The caller calls done.
func (d *Daemon) enterWrite(name string) (done func(), err error) {
	v, err := d.find(name)
	if err != nil {
		return nil, err
	}
	m, err := d.mapped(v)
	if err != nil {
		return nil, err
	}
	if err := d.inUse(m); err != nil {
		return nil, err
	}
	busy := hint(fmt.Errorf("device %q: %w: another call writes to its file system", name, block.ErrBusy), "try again when it is done")
	d.mu.Lock()
	if d.writing[m] {
		d.mu.Unlock()
		return nil, busy
	}
	if d.writing == nil {
		d.writing = map[*dm.Mapped]bool{}
	}
	others := slices.Collect(maps.Keys(d.writing))
	d.writing[m] = true
	d.mu.Unlock()
	done = func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.writing, m)
	}
	// What is written through a table and beneath it may be the same blocks.
	for _, o := range others {
		if liesOn(o, m) || liesOn(m, o) {
			done()
			return nil, busy
		}
	}
	return done, nil
}

// inUse reports who may have the file system on m mounted: a client of an export of m,
// or of what is above or beneath it.
func (d *Daemon) inUse(m *dm.Mapped) error {
	for _, e := range d.listExports() {
		if len(e.Connections) == 0 {
			continue
		}
		v, err := d.find(e.Device)
		if err != nil {
			continue // removed meanwhile
		}
		of, err := d.mapped(v)
		if err != nil {
			continue
		}
		if of == m || liesOn(of, m) || liesOn(m, of) {
			return hint(fmt.Errorf("device %q: %w: export %q of device %q has %d connections, and whoever has the file system mounted must not be written under",
				m.State().Name, block.ErrBusy, e.Name, e.Device, len(e.Connections)), "unmount it and disconnect there")
		}
	}
	return nil
}

// liesOn reports whether m is on beneath, directly or through others.
func liesOn(m, beneath *dm.Mapped) bool {
	for _, s := range m.Under() {
		if h, ok := s.Dev.(*dm.Handle); ok && (h.Mapped == beneath || liesOn(h.Mapped, beneath)) {
			return true
		}
	}
	return false
}

// Write replaces r.Length bytes of a file in place by what data has, which is not read
// before nothing forbids it any more.
func (x *files) Write(ctx context.Context, r control.FscryptWrite, data io.Reader) (out control.FscryptWritten, err error) {
	path := cleanPath(string(r.Path))
	f, err := x.at(path, true)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.Close(context.WithoutCancel(ctx))) }()
	out.Bytes, err = f.WriteFrom(ctx, data, r.Offset, r.Length)
	if err != nil {
		err = fmt.Errorf("%s: %w", shown(path), writeHint(x.hint(err)))
	}
	return out, err
}

// writeHint adds the way out of what a volume says that is written to.
func writeHint(err error) error {
	switch {
	case errors.Is(err, volume.ErrUnclean):
		return hint(err, "mount it where it belongs, so that its journal is replayed, and unmount it; nothing was written")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return hint(err, "the data ended early: write the rest again")
	}
	return filesHint(err)
}
