package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

// FscryptWrite is the parameter "request" of POST /v1/devices/NAME/fscrypt/write, in
// JSON: which bytes of which file are replaced in place. The body is what is written,
// Length bytes and no more; the keys come as with Fscrypt. Everything that can be
// refused is, before a byte of the body is asked for (Expect: 100-continue) or written.
// Nobody else may have the file system in use, as far as can be told.
type FscryptWrite struct {
	Path   []byte       `json:"path"` // as in Fscrypt; symbolic links are followed
	Keys   []FscryptKey `json:"keys,omitempty"`
	Offset int64        `json:"offset"` // in the file, in bytes
	Length int64        `json:"length"` // bytes
}

// FscryptWritten is the answer: all of it is on the medium, and flushed.
type FscryptWritten struct {
	Bytes int64 `json:"bytes"`
}

// continueTimeout is how long the body waits to be asked for. It is never sent unasked:
// the limits of a call are those of its context and of the daemon.
const continueTimeout = 24 * time.Hour

// FscryptWrite writes what data has, r.Length bytes, to a file in place. keys is as for
// FscryptList. A client that goes away in the middle, as by the end of ctx, leaves the
// file with what came until then; the daemon gives everything back.
func (c *Client) FscryptWrite(ctx context.Context, name string, r FscryptWrite, keys *os.File, data io.Reader) (x FscryptWritten, err error) {
	q, err := json.Marshal(r)
	if err != nil {
		return x, err
	}
	query := url.Values{"request": {string(q)}}
	if c.Timeout > 0 {
		query.Set("timeout", c.Timeout.String())
	}
	in, out := io.Pipe()
	body := &lastError{Reader: io.LimitReader(data, r.Length)}
	asked := &onDemand{PipeReader: in, begin: sync.OnceFunc(func() {
		go func() {
			_, err := io.Copy(out, body)
			out.CloseWithError(err) // the end, if it is nil
		}()
	})}
	path := device(name, "/fscrypt/write")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keyway/v1/"+path+"?"+query.Encode(), asked)
	if err != nil {
		return x, err
	}
	req.ContentLength = r.Length
	if r.Length == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Expect", "100-continue")
	t := &http.Transport{
		DisableKeepAlives: true, ExpectContinueTimeout: continueTimeout,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := c.dial(ctx, descriptor(keys))
			if err != nil {
				return nil, err
			}
			return &ending{conn, in}, nil
		},
	}
	defer in.Close() // data may be read once more, and what came is dropped
	resp, err := t.RoundTrip(req)
	if err != nil {
		if failed := body.failed(); failed != nil {
			return x, fmt.Errorf("what is to be written: %w", failed)
		}
		return x, c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		e := &Error{Status: resp.StatusCode}
		if err := json.NewDecoder(resp.Body).Decode(e); err != nil || e.Message == "" {
			return x, fmt.Errorf("the daemon at %s answered %s", c.Socket, resp.Status)
		}
		return x, e
	}
	if err := json.NewDecoder(resp.Body).Decode(&x); err != nil {
		return x, fmt.Errorf("the daemon at %s: answer to %s: %w", c.Socket, path, err)
	}
	if x.Bytes != r.Length {
		return x, errors.New("the daemon wrote another number of bytes than it was asked for")
	}
	return x, nil
}

// ending is a connection whose end ends the body too, which may wait for data that does
// not come: whoever sends it waits for the body.
type ending struct {
	net.Conn
	body *io.PipeReader
}

func (e *ending) Close() error {
	e.body.Close()
	return e.Conn.Close()
}

// onDemand begins to read when it is read.
type onDemand struct {
	*io.PipeReader
	begin func()
}

func (o *onDemand) Read(p []byte) (int, error) {
	o.begin()
	return o.PipeReader.Read(p)
}

// lastError keeps the error of a reader.
type lastError struct {
	io.Reader
	mu  sync.Mutex // guards err
	err error
}

func (l *lastError) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err != nil && err != io.EOF {
		l.mu.Lock()
		l.err = err
		l.mu.Unlock()
	}
	return n, err
}

func (l *lastError) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
