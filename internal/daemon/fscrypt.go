package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/fscrypt"
	"keyway/internal/secret"
)

// evictFiles bounds how long the keys of a file system may take to be evicted when its
// call is over: no request uses them any more, so that only an engine can be slow.
const evictFiles = time.Minute

// lastWords is how long a client that does not read may hold up the end of its call
// when the daemon ends.
const lastWords = controlGrace * 3 / 4

// fscryptCall answers POST /v1/devices/{name}/fscrypt/{op}: it opens the file system,
// and closes it, with its keys evicted, before the answer ends, also if the client goes
// away meanwhile.
func (d *Daemon) fscryptCall(w http.ResponseWriter, r *http.Request) (err error) {
	if err := d.enterCall(); err != nil {
		return err
	}
	defer d.leaveCall()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(d.ending, func() { cancel(errEnding) })()
	conn := http.NewResponseController(w)
	defer context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Now().Add(lastWords)) })()

	in, keys, err := fscryptRequest(r)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	op := r.PathValue("op")
	x, done, err := d.openFilesOf(ctx, r.PathValue("name"), op, in, keys)
	if err != nil {
		return err
	}
	ended := false
	end := func() error {
		if ended {
			return nil
		}
		ended = true
		return done()
	}
	defer end()

	out := control.NewStreamWriter(w)
	var result any
	switch op {
	case "status", "explain":
		if op == "status" {
			result, err = x.Status(ctx, in)
		} else {
			result, err = x.Explain(ctx, in)
		}
		if err = errors.Join(err, end()); err == nil {
			reply(w, http.StatusOK, result)
		}
		return err
	case "ls":
		err = x.List(ctx, in, out.Sink())
	case "cat":
		result, err = x.Cat(ctx, in, out.Sink())
	case "export":
		result, err = x.Export(ctx, in, out.Sink())
	default:
		return notFound{fmt.Errorf("%q is no request for a file system", op)}
	}
	if err = errors.Join(err, end()); err != nil && out.Empty() {
		return err
	}
	if err != nil {
		out.End(nil, &control.Error{Message: err.Error(), Hint: Hint(err)}) // the client may have gone
		return nil
	}
	out.End(result, nil)
	return nil
}

// calls are the control requests that have a file system open. Guarded by Daemon.mu.
type calls struct {
	n    int
	none chan struct{} // closed when the last has ended; nil: nobody waits
}

func (d *Daemon) enterCall() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return errEnding
	}
	d.calls.n++
	return nil
}

func (d *Daemon) leaveCall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls.n--; d.calls.n == 0 && d.calls.none != nil {
		close(d.calls.none)
	}
}

// endCalls waits, once no more calls are let in, for those that have a file system
// open: they end with d.ending, and evict their keys.
func (d *Daemon) endCalls(ctx context.Context) error {
	d.mu.Lock()
	if d.calls.n == 0 {
		d.mu.Unlock()
		return nil
	}
	none := make(chan struct{})
	d.calls.none = none
	d.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("calls that read files: %w", context.Cause(ctx))
	}
}

// fscryptRequest reads a request and the bytes of its keys; see fscryptKeys.
func fscryptRequest(r *http.Request) (in control.Fscrypt, keys *secret.Buffer, err error) {
	if err := decode(r.Body, &in); err != nil {
		return in, nil, err
	}
	keys, err = fscryptKeys(r, in.Keys)
	return in, keys, err
}

// fscryptKeys reads the bytes of the keys of a request, which come by one descriptor,
// one after the other. The caller wipes them; nil: there are none.
func fscryptKeys(r *http.Request, described []control.FscryptKey) (keys *secret.Buffer, err error) {
	fd := -1
	if c, ok := r.Context().Value(connKey{}).(*controlConn); ok {
		fd = c.descriptor()
	}
	var f *os.File
	if fd >= 0 {
		if f, err = keyFile(fd); err != nil {
			return nil, badRequest{err}
		}
		defer f.Close()
	}
	total := 0
	if len(described) > control.MaxFscryptKeys {
		return nil, badRequest{fmt.Errorf("%d keys, more than %d", len(described), control.MaxFscryptKeys)}
	}
	for _, k := range described {
		most := fscrypt.MaxKeySize
		if k.Wrapped {
			most = blkcrypto.MaxWrapped
		}
		if k.Size < 1 || k.Size > most {
			return nil, badRequest{fmt.Errorf("key from %s: %d bytes, not 1 to %d", k.Source, k.Size, most)}
		}
		total += k.Size
	}
	switch {
	case total == 0 && f == nil:
		return nil, nil
	case total == 0:
		return nil, badRequest{errors.New("a descriptor came, and no key is described")}
	case f == nil:
		return nil, badRequest{errors.New("no descriptor came with the request to read the keys from")}
	}
	keys, err = secret.ReadFrom(f, total)
	if err == nil && keys.Len() != total {
		keys.Wipe()
		err = fmt.Errorf("%d bytes came", keys.Len())
	}
	if err != nil {
		return nil, badRequest{fmt.Errorf("keys, %d bytes in all: %w", total, err)}
	}
	return keys, nil
}

// openFilesOf opens the file system on a device with the keys that came with a call,
// whose bytes stay the caller's. done gives everything back.
func (d *Daemon) openFilesOf(ctx context.Context, name, op string, in control.Fscrypt, keys *secret.Buffer) (x *files, done func() error, err error) {
	v, err := d.find(name)
	if err != nil {
		return nil, nil, err
	}
	m, err := d.mapped(v)
	if err != nil {
		return nil, nil, err
	}
	if !m.State().Live {
		return nil, nil, hint(fmt.Errorf("device %q has no live table", name), "\"keyway load\" and \"keyway resume\" give it one")
	}
	h, err := m.Open("fscrypt " + op)
	if err != nil {
		return nil, nil, err
	}
	x, err = openFiles(ctx, h, in.Unclean)
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	done = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), evictFiles)
		defer cancel()
		err := x.close(ctx)
		if err != nil {
			d.log.Error("keys of a file system", "device", name, "err", err)
		}
		return errors.Join(err, h.Close())
	}
	at := 0
	for _, k := range in.Keys {
		if err = d.giveKey(x, k, keys.Bytes()[at:at+k.Size]); err != nil {
			return nil, nil, errors.Join(err, done())
		}
		at += k.Size
	}
	return x, done, nil
}

// giveKey gives x a key of the bytes in b.
func (d *Daemon) giveKey(x *files, k control.FscryptKey, b []byte) error {
	own, err := secret.New(len(b))
	if err != nil {
		return err
	}
	secret.Move(own.Bytes(), b)
	if !k.Wrapped {
		return x.addKey(k, own, nil)
	}
	own, err = d.prepared(blkcrypto.Config{KeyType: blkcrypto.HWWrapped}, own)
	if err != nil {
		return fmt.Errorf("key from %s: %w", k.Source, err)
	}
	hw, err := d.hardware()
	if err != nil {
		own.Wipe()
		return err
	}
	return x.addKey(k, own, hw)
}
