package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"keyway/internal/nbdproto"
)

// A conn is a connection from accept to close.
type conn struct {
	srv    *Server
	nc     net.Conn
	lane   uint16
	peer   string
	since  time.Time
	ctx    context.Context // of requests; ends with the peer or by abort
	cancel context.CancelCauseFunc
	done   chan struct{} // closed at the very end

	draining atomic.Bool
	inFlight atomic.Int64
	held     atomic.Int64 // bytes charged to the budget
	counters counters

	mu    sync.Mutex
	wire  wire   // nil during the handshake
	exp   *entry // nil during the handshake
	style nbdproto.Style
	tls   bool
	cut   bool // abort was called
}

// run is the life of c.
func (c *conn) run() {
	log := c.srv.cfg.Log.With("peer", c.peer, "lane", c.lane)
	defer close(c.done)
	defer c.srv.forget(c)
	defer c.cancel(net.ErrClosed)
	defer func() { c.nc.Close() }()
	res, rest, err := c.negotiate()
	if err != nil || res == nil {
		if err != nil {
			log.Info("nbd: negotiation ended", "err", err)
		}
		return
	}
	e := res.Export.Ref.(*entry)
	w, err := newWire(c.nc, c.srv.cfg.StallTimeout)
	if err != nil {
		log.Warn("nbd: connection lost", "err", err)
		return
	}
	c.enter(w, res.Style)
	log = log.With("export", e.Name)
	log.Info("nbd: client attached", "replies", res.Style.String(), "tls", c.tls)
	err = newLane(c, w, *res).serve(rest)
	w.close()
	if err != nil {
		log.Info("nbd: client lost", "err", err)
	} else {
		log.Info("nbd: client detached")
	}
}

// enter begins transmission: the deadline of the negotiation ends, and what
// drain or abort asked for meanwhile is done to the wire now.
func (c *conn) enter(w wire, style nbdproto.Style) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wire, c.style = w, style
	c.nc.SetDeadline(time.Time{})
	switch {
	case c.cut:
		w.kill()
	case c.draining.Load():
		w.stop()
	}
}

// drain lets c complete what its peer has begun, then end.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining.Store(true)
	if c.wire != nil {
		c.wire.stop()
	} else {
		// The next option is refused; a peer that sends none is not waited for.
		raw(c.nc).SetReadDeadline(time.Now().Add(drainHandshake))
	}
}

const drainHandshake = 500 * time.Millisecond

// abort ends c as fast as its device allows.
func (c *conn) abort(cause error) {
	c.cancel(fmt.Errorf("%w: %w", errDraining, cause))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	if c.wire != nil {
		c.wire.kill()
	} else {
		raw(c.nc).Close()
	}
}

func (c *conn) info() ConnInfo {
	n := &c.counters
	i := ConnInfo{
		Lane: c.lane, Peer: c.peer, Since: c.since, InFlight: int(c.inFlight.Load()),
		Counters: Counters{
			Reads: n.reads.Load(), Writes: n.writes.Load(), Flushes: n.flushes.Load(),
			Trims: n.trims.Load(), Zeroes: n.zeroes.Load(), Others: n.others.Load(),
			BytesRead: n.bytesRead.Load(), BytesWritten: n.bytesWritten.Load(),
			Errors: n.errors.Load(), Deferred: n.deferred.Load(),
		},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i.TLS = c.tls
	if c.exp != nil {
		i.Export, i.Style = c.exp.Name, c.style.String()
	}
	return i
}

// negotiate does the handshake. It returns a nil result if the client left in
// good order, and the bytes that came after the handshake.
func (c *conn) negotiate() (*nbdproto.Result, []byte, error) {
	cfg := &c.srv.cfg
	c.mu.Lock()
	if !c.draining.Load() {
		c.nc.SetDeadline(c.since.Add(cfg.HandshakeTimeout))
	}
	c.mu.Unlock()
	mode := nbdproto.TLSOff
	switch {
	case cfg.RequireTLS:
		mode = nbdproto.TLSRequire
	case cfg.TLS != nil:
		mode = nbdproto.TLSAllow
	}
	h := nbdproto.NewHandshake(view{c.srv}, mode, false)
	if _, err := c.nc.Write(h.Greeting()); err != nil {
		return nil, nil, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.nc.Read(buf)
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the client left during negotiation")
			}
			return nil, nil, err
		}
		if c.draining.Load() {
			h.Shutdown()
		}
		in := buf[:n]
		used, out, act, err := h.Step(in)
		// Attach before the reply that lets the client go on: an export that
		// was removed meanwhile can still be refused.
		if act == nbdproto.Transmit && !c.srv.attach(c, h.Result().Export.Ref.(*entry)) {
			return nil, nil, fmt.Errorf("export %q was removed during negotiation", h.Result().Export.Name)
		}
		if len(out) > 0 {
			if _, werr := c.nc.Write(out); werr != nil {
				return nil, nil, werr
			}
		}
		switch act {
		case nbdproto.Close:
			return nil, nil, err
		case nbdproto.StartTLS:
			if err := c.startTLS(); err != nil {
				return nil, nil, err
			}
			h.TLSDone()
		case nbdproto.Transmit:
			r := h.Result()
			return &r, in[used:], nil
		}
	}
}

func (c *conn) startTLS() error {
	t := tls.Server(c.nc, c.srv.cfg.TLS)
	if err := t.Handshake(); err != nil { // within the connection's deadline
		return fmt.Errorf("TLS: %w", err)
	}
	c.mu.Lock()
	c.nc, c.tls = t, true
	c.mu.Unlock()
	return nil
}
