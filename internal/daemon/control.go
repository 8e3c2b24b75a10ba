package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"keyway/block"
	"keyway/control"
	"keyway/dm"
)

// maxBody bounds a request, in bytes: a table of 100,000 rows fits.
const maxBody = 16 << 20

// A controlServer answers at the control socket.
type controlServer struct {
	http *http.Server
	done chan error
}

// serveControl begins to serve control requests that come to l.
func serveControl(d *Daemon, l *net.UnixListener) *controlServer {
	s := &controlServer{done: make(chan error, 1)}
	s.http = &http.Server{
		Handler: d.handler(), ConnContext: withConn,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	go func() { s.done <- s.http.Serve(&peerListener{l, d.cfg.AllowUID, d.log}) }()
	return s
}

func (d *Daemon) controlListener() (*net.UnixListener, error) {
	if l := d.o.Listeners["control"]; l != nil {
		u, ok := l.(*net.UnixListener)
		if !ok {
			return nil, fmt.Errorf("the control socket that was passed is of type %T, not a Unix socket", l)
		}
		return u, nil
	}
	if d.o.Socket == "" {
		return nil, errors.New("no control socket is set")
	}
	if err := os.MkdirAll(filepath.Dir(d.o.Socket), 0o700); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := listen(context.Background(), listenAddr{"unix", d.o.Socket})
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// close lets the requests under way end until ctx does, but not those that
// only wait for something to happen.
func (s *controlServer) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, controlGrace)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close() // ends the contexts of what is left
	}
	if e := <-s.done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// controlGrace is how long requests of the control socket may take to end at
// shutdown before their connections are closed.
const controlGrace = 2 * time.Second

// answer is what handlers return; an http status is found for the error.
type answer func(ctx context.Context, r *http.Request) (any, error)

// handler routes requests.
func (d *Daemon) handler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f answer) { mux.Handle("GET /v1/"+path, d.serve(f)) }
	post := func(path string, f answer) { mux.Handle("POST /v1/"+path, d.serve(f)) }

	get("version", func(context.Context, *http.Request) (any, error) {
		return control.Version{Version: d.o.Version, PID: os.Getpid(), State: d.state.path, KeyMemory: keyMemory()}, nil
	})
	mux.Handle("GET /v1/events", d.admit(d.streamEvents))
	get("devices", func(context.Context, *http.Request) (any, error) { return d.listDevices(), nil })
	post("devices", body(func(ctx context.Context, _ string, in control.Create) (any, error) { return d.create(ctx, in) }))
	get("devices/{name}", d.onDevice(func(_ context.Context, v *device, _ *http.Request) (any, error) { return d.describe(v), nil }))
	get("devices/{name}/table", d.onDevice(func(_ context.Context, v *device, r *http.Request) (any, error) {
		return d.text(v, r.FormValue("inactive") != "", dm.StatusTable)
	}))
	get("devices/{name}/status", d.onDevice(func(_ context.Context, v *device, r *http.Request) (any, error) {
		return d.text(v, r.FormValue("inactive") != "", dm.StatusInfo)
	}))
	get("devices/{name}/crypto", d.onDevice(func(_ context.Context, v *device, _ *http.Request) (any, error) { return d.crypto(v) }))
	get("devices/{name}/explain", d.onDevice(func(ctx context.Context, v *device, r *http.Request) (any, error) { return d.explain(ctx, v, r) }))
	get("devices/{name}/wait", d.onDevice(func(ctx context.Context, v *device, r *http.Request) (any, error) {
		n, err := parseEvent(r.FormValue("event"))
		if err != nil {
			return nil, err
		}
		m, err := d.mapped(v)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(d.ending, func() { cancel(errEnding) })()
		d.waiting.Add(1)
		defer d.waiting.Add(-1)
		n, err = m.Wait(ctx, n)
		return control.EventNumber{Event: n}, err
	}))
	post("devices/{name}/load", body(func(ctx context.Context, name string, in control.Load) (any, error) { return d.load(ctx, name, in) }))
	post("devices/{name}/reload", body(func(ctx context.Context, name string, in control.Load) (any, error) { return d.reload(ctx, name, in) }))
	post("devices/{name}/clear", body(func(ctx context.Context, name string, _ struct{}) (any, error) { return d.clear(ctx, name) }))
	post("devices/{name}/suspend", body(func(ctx context.Context, name string, in control.Suspend) (any, error) {
		return d.suspend(ctx, name, in)
	}))
	post("devices/{name}/resume", body(func(ctx context.Context, name string, _ struct{}) (any, error) { return d.resume(ctx, name) }))
	post("devices/{name}/rename", body(func(ctx context.Context, name string, in control.Rename) (any, error) {
		return d.rename(ctx, name, in.Name)
	}))
	post("devices/{name}/remove", body(func(ctx context.Context, name string, in control.Remove) (any, error) { return d.remove(ctx, name, in) }))
	post("devices/{name}/message", body(func(ctx context.Context, name string, in control.Message) (any, error) {
		return d.message(ctx, name, in)
	}))

	mux.Handle("POST /v1/devices/{name}/fscrypt/{op}", d.admit(d.fscryptCall))
	mux.Handle("POST /v1/devices/{name}/fscrypt/write", d.admitUpTo(math.MaxInt64, d.fscryptWrite))

	get("keys", func(context.Context, *http.Request) (any, error) { return d.listKeys(), nil })
	get("keys/{name}", func(_ context.Context, r *http.Request) (any, error) { return d.showKey(r.PathValue("name")) })
	post("keys", withKey(d, d.addKey))
	post("wrap", withKey(d, d.wrap))
	post("keys/{name}/evict", body(func(ctx context.Context, name string, in control.EvictKey) (any, error) {
		return d.evictKey(ctx, name, in)
	}))

	get("exports", func(context.Context, *http.Request) (any, error) { return d.listExports(), nil })
	post("exports", body(func(ctx context.Context, _ string, in control.Export) (any, error) { return d.addExport(ctx, in) }))
	post("exports/remove", body(func(ctx context.Context, _ string, in control.RemoveExport) (any, error) {
		return d.removeExport(ctx, in)
	}))
	mux.Handle("/", d.serve(func(_ context.Context, r *http.Request) (any, error) {
		return nil, notFound{fmt.Errorf("%s %s is no request of the control protocol", r.Method, r.URL.Path)}
	}))
	return mux
}

// onDevice finds the device that the path names.
func (d *Daemon) onDevice(f func(ctx context.Context, v *device, r *http.Request) (any, error)) answer {
	return func(ctx context.Context, r *http.Request) (any, error) {
		v, err := d.find(r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		return f(ctx, v, r)
	}
}

// body decodes the request strictly.
func body[T any](f func(ctx context.Context, name string, in T) (any, error)) answer {
	return func(ctx context.Context, r *http.Request) (any, error) {
		var in T
		if err := decode(r.Body, &in); err != nil {
			return nil, err
		}
		return f(ctx, r.PathValue("name"), in)
	}
}

type badRequest struct{ error }

// decode reads one JSON value and nothing after it. Errors do not repeat what
// was sent.
func decode(r io.Reader, in any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			err = fmt.Errorf("field %q is not of type %v", wrong.Field, wrong.Type)
		}
		return badRequest{fmt.Errorf("request body: %w", err)}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return badRequest{errors.New("request body: there is more after its end")}
	}
	return nil
}

// withKey decodes a request that a key comes with, by descriptor.
func withKey[In, Out any](d *Daemon, f func(ctx context.Context, in In, key *os.File) (Out, error)) answer {
	return func(ctx context.Context, r *http.Request) (any, error) {
		var in In
		if err := decode(r.Body, &in); err != nil {
			return nil, err
		}
		fd := -1
		if c, ok := r.Context().Value(connKey{}).(*controlConn); ok {
			fd = c.descriptor()
		}
		if fd < 0 {
			return f(ctx, in, nil)
		}
		key, err := keyFile(fd)
		if err != nil {
			return nil, badRequest{err}
		}
		defer key.Close()
		return f(ctx, in, key)
	}
}

// serve runs f and writes what it returns.
func (d *Daemon) serve(f answer) http.Handler {
	return d.admit(func(w http.ResponseWriter, r *http.Request) error {
		out, err := f(r.Context(), r)
		if err == nil {
			reply(w, http.StatusOK, out)
		}
		return err
	})
}

// admit runs f for those who may control the daemon, under the request's own time
// limit. f has written nothing if it returns an error.
func (d *Daemon) admit(f func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return d.admitUpTo(maxBody, f)
}

// admitUpTo is admit of bodies of up to most bytes.
func (d *Daemon) admitUpTo(most int64, f func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*controlConn); ok && c.stranger {
			reply(w, http.StatusForbidden, control.Error{
				Message: "this user may not control the daemon",
				Hint:    "root and the daemon's own user may, and those of allow-uid in the [control] section of its configuration",
			})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
		if t := r.URL.Query().Get("timeout"); t != "" {
			limit, err := time.ParseDuration(t)
			if err != nil || limit <= 0 {
				reply(w, http.StatusBadRequest, control.Error{Message: "timeout is not a positive duration such as 10s"})
				return
			}
			ctx, cancel := context.WithTimeoutCause(r.Context(), limit, fmt.Errorf("not done within %v", limit))
			defer cancel()
			r = r.WithContext(ctx)
		}
		if err := f(w, r); err != nil {
			reply(w, status(err), control.Error{Message: err.Error(), Hint: Hint(err)})
		}
	})
}

func status(err error) int {
	if _, bad := errors.AsType[badRequest](err); bad {
		return http.StatusBadRequest
	}
	switch {
	case errors.Is(err, errNotFound):
		return http.StatusNotFound
	case errors.Is(err, errExists), errors.Is(err, block.ErrBusy):
		return http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusUnprocessableEntity
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(v) // the client may have gone
}
