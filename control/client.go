package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A Client talks to the daemon at one socket. Its methods may be called
// concurrently; each makes a connection of its own, so that the end of ctx
// ends the call in the daemon too.
type Client struct {
	Socket string
	// Timeout bounds what the daemon does for a call; 0: no limit.
	Timeout time.Duration
}

// DefaultSocket returns where the control socket is unless somebody says
// otherwise: $KEYWAY_SOCKET, else $XDG_RUNTIME_DIR/keyway/control.sock, else
// for root /run/keyway/control.sock. For others without a session, as after
// su, it is in the state directory of their home. It returns "" if there is
// none of them.
func DefaultSocket() string {
	if s := os.Getenv("KEYWAY_SOCKET"); s != "" {
		return s
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "keyway", "control.sock")
	}
	if os.Geteuid() == 0 {
		return "/run/keyway/control.sock"
	}
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "keyway", "control.sock")
	}
	return ""
}

// call sends in as JSON, if it is not nil, with the descriptor fd if it is not
// negative, and decodes the answer into out.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any, fd int) error {
	resp, err := c.send(ctx, method, path, query, in, fd)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("the daemon at %s: answer to %s: %w", c.Socket, path, err)
	}
	return nil
}

// send is call up to the body of an answer that is no error; the caller closes it.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, in any, fd int) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	if query == nil {
		query = url.Values{}
	}
	if c.Timeout > 0 {
		query.Set("timeout", c.Timeout.String())
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://keyway/v1/"+path+"?"+query.Encode(), body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return c.dial(ctx, fd)
	}}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		e := &Error{Status: resp.StatusCode}
		if err := json.NewDecoder(resp.Body).Decode(e); err != nil || e.Message == "" {
			return nil, fmt.Errorf("the daemon at %s answered %s", c.Socket, resp.Status)
		}
		return nil, e
	}
	return resp, nil
}

func (c *Client) dial(ctx context.Context, fd int) (net.Conn, error) {
	if c.Socket == "" {
		return nil, errors.New("no control socket is known")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	if err != nil || fd < 0 {
		return conn, err
	}
	return &passing{UnixConn: conn.(*net.UnixConn), fd: fd}, nil
}

// explain turns the errors of a connection that did not come about into what
// a user can act on.
func (c *Client) explain(err error) error {
	var hint string
	switch {
	case c.Socket == "":
		hint = "set --socket, $KEYWAY_SOCKET or $XDG_RUNTIME_DIR"
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return &Error{
			Message: fmt.Sprintf("no daemon listens at %s", c.Socket),
			Hint:    "start one with \"keyway serve\", or name its socket with --socket",
		}
	case errors.Is(err, unix.EACCES):
		hint = "the socket belongs to another user"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		hint = "the daemon has ended: see its log"
	}
	return &Error{Message: fmt.Sprintf("control socket %s: %v", c.Socket, err), Hint: hint}
}

// passing sends a descriptor with the first byte that it writes.
type passing struct {
	*net.UnixConn
	fd int
}

func (p *passing) Write(b []byte) (int, error) {
	if p.fd < 0 || len(b) == 0 {
		return p.UnixConn.Write(b)
	}
	n, oobn, err := p.UnixConn.WriteMsgUnix(b[:1], unix.UnixRights(p.fd), nil)
	if err != nil || oobn == 0 {
		return n, errors.Join(err, errNotPassed(oobn))
	}
	p.fd = -1
	m, err := p.UnixConn.Write(b[1:])
	return n + m, err
}

func errNotPassed(oobn int) error {
	if oobn == 0 {
		return errors.New("the descriptor of the key was not passed")
	}
	return nil
}

func (c *Client) get(ctx context.Context, path string, q url.Values, out any) error {
	return c.call(ctx, http.MethodGet, path, q, nil, out, -1)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	return c.call(ctx, http.MethodPost, path, nil, in, out, -1)
}

func device(name, verb string) string { return "devices/" + url.PathEscape(name) + verb }

// Version asks which daemon this is.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	return v, c.get(ctx, "version", nil, &v)
}

// Create makes a device.
func (c *Client) Create(ctx context.Context, r Create) (ch Changed, err error) {
	return ch, c.post(ctx, "devices", r, &ch)
}

// Load puts a table into the inactive slot.
func (c *Client) Load(ctx context.Context, name string, r Load) (ch Changed, err error) {
	return ch, c.post(ctx, device(name, "/load"), r, &ch)
}

// Reload is load, suspend and resume as one step.
func (c *Client) Reload(ctx context.Context, name string, r Load) (ch Changed, err error) {
	return ch, c.post(ctx, device(name, "/reload"), r, &ch)
}

// Clear empties the inactive slot.
func (c *Client) Clear(ctx context.Context, name string) (ch Changed, err error) {
	return ch, c.post(ctx, device(name, "/clear"), struct{}{}, &ch)
}

// Suspend stops admitting requests and waits for those under way.
func (c *Client) Suspend(ctx context.Context, name string, r Suspend) (ch Changed, err error) {
	return ch, c.post(ctx, device(name, "/suspend"), r, &ch)
}

// Resume makes an inactive table live and admits requests again.
func (c *Client) Resume(ctx context.Context, name string) (ch Changed, err error) {
	return ch, c.post(ctx, device(name, "/resume"), struct{}{}, &ch)
}

// Rename gives a device another name.
func (c *Client) Rename(ctx context.Context, name, to string) (ch Changed, err error) {
	return ch, c.post(ctx, device(name, "/rename"), Rename{to}, &ch)
}

// Remove takes a device away.
func (c *Client) Remove(ctx context.Context, name string, r Remove) (ch Changed, err error) {
	return ch, c.post(ctx, device(name, "/remove"), r, &ch)
}

// Message sends words to a target, or to the device if the first begins
// with "@".
func (c *Client) Message(ctx context.Context, name string, m Message) (t Text, err error) {
	return t, c.post(ctx, device(name, "/message"), m, &t)
}

// Devices lists all devices by name.
func (c *Client) Devices(ctx context.Context) (l []Device, err error) {
	return l, c.get(ctx, "devices", nil, &l)
}

// Device describes one.
func (c *Client) Device(ctx context.Context, name string) (d Device, err error) {
	return d, c.get(ctx, device(name, ""), nil, &d)
}

// Table returns a table's text: what can be loaded again.
func (c *Client) Table(ctx context.Context, name string, inactive bool) (string, error) {
	return c.text(ctx, name, "/table", inactive)
}

// Status returns the state of each row.
func (c *Client) Status(ctx context.Context, name string, inactive bool) (string, error) {
	return c.text(ctx, name, "/status", inactive)
}

func (c *Client) text(ctx context.Context, name, verb string, inactive bool) (string, error) {
	q := url.Values{}
	if inactive {
		q.Set("inactive", "1")
	}
	var t Text
	err := c.get(ctx, device(name, verb), q, &t)
	return t.Text, err
}

// Wait returns the device's number of events once it differs from event.
func (c *Client) Wait(ctx context.Context, name string, event uint64) (uint64, error) {
	var e EventNumber
	err := c.get(ctx, device(name, "/wait"), url.Values{"event": {fmt.Sprint(event)}}, &e)
	return e.Event, err
}

// Crypto tells who encrypts what for a device.
func (c *Client) Crypto(ctx context.Context, name string) (r Crypto, err error) {
	return r, c.get(ctx, device(name, "/crypto"), nil, &r)
}

// ReadKey makes the daemon read a key that is missing from its own source, which the
// configuration or an earlier AddKey named, again.
func (c *Client) ReadKey(ctx context.Context, name string) (ch Changed, err error) {
	return ch, c.post(ctx, "keys", AddKey{Name: name, Again: true}, &ch)
}

// AddKey adds a key whose bytes the daemon reads from f: a file, or a pipe
// whose writers are gone. f stays the caller's.
func (c *Client) AddKey(ctx context.Context, r AddKey, f *os.File) (ch Changed, err error) {
	return ch, c.call(ctx, http.MethodPost, "keys", nil, r, &ch, int(f.Fd()))
}

// Wrap asks the hardware of the emulated engines for a wrapped key. f holds the key
// that op takes, and is nil for generate; it stays the caller's.
func (c *Client) Wrap(ctx context.Context, r Wrap, f *os.File) (w Wrapped, err error) {
	fd := -1
	if f != nil {
		fd = int(f.Fd())
	}
	return w, c.call(ctx, http.MethodPost, "wrap", nil, r, &w, fd)
}

// Keys lists all keys by name.
func (c *Client) Keys(ctx context.Context) (l []Key, err error) {
	return l, c.get(ctx, "keys", nil, &l)
}

// Key describes one.
func (c *Client) Key(ctx context.Context, name string) (k Key, err error) {
	return k, c.get(ctx, "keys/"+url.PathEscape(name), nil, &k)
}

// EvictKey evicts a key. The receipt is there also when some place did not
// confirm; Error says so then.
func (c *Client) EvictKey(ctx context.Context, name string, r EvictKey) (e Eviction, err error) {
	return e, c.post(ctx, "keys/"+url.PathEscape(name)+"/evict", r, &e)
}

// AddExport offers a device.
func (c *Client) AddExport(ctx context.Context, e Export) (made Export, err error) {
	return made, c.post(ctx, "exports", e, &made)
}

// RemoveExport ends an export, when its clients are done or the time is over.
func (c *Client) RemoveExport(ctx context.Context, r RemoveExport) (ch Changed, err error) {
	return ch, c.post(ctx, "exports/remove", r, &ch)
}

// Exports lists all exports by name.
func (c *Client) Exports(ctx context.Context) (l []Export, err error) {
	return l, c.get(ctx, "exports", nil, &l)
}
