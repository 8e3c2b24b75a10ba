// Package nbd serves block devices by the Network Block Device protocol:
// fixed newstyle negotiation, structured replies, extended headers, block
// status, multi-conn, TLS; over any stream listener.
//
// Each connection is a lane: one goroutine that reads many requests with one
// system call, performs them itself as long as nothing blocks, and sends the
// replies with one system call. A request that would block moves to a worker
// of its connection. Several connections to one export see one device, and a
// request is complete when the device's Do has returned: so a flush on any of
// them covers what has completed on all, which is what CAN_MULTI_CONN
// promises.
//
// Lock order:
//
//	Server.mu
//	  conn.mu
//	writer.wire
//	  writer.mu
//	  budget.mu
//	  jobs.mu
package nbd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"keyway/block"
	"keyway/export"
	"keyway/internal/nbdproto"
)

var _ export.Server = (*Server)(nil)

// A Server offers exports over NBD. Make it with New.
type Server struct {
	cfg    Config
	budget budget

	mu      sync.Mutex
	exports map[string]*entry
	conns   map[*conn]struct{}
	lanes   []bool  // lane numbers in use, by number; 0 is never given out
	rmw     []*shim // one for each device, so that its exports share range locks
}

// An entry is an export with those who use it.
type entry struct {
	export.Export
	shim  *shim
	gone  bool               // removed: guarded by Server.mu
	conns map[*conn]struct{} // guarded by Server.mu
}

// A shim is a device that takes requests of any alignment.
type shim struct {
	raw, dev block.Device
	users    int // guarded by Server.mu
}

// New returns a server without exports.
func New(c Config) (*Server, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     c,
		exports: make(map[string]*entry),
		conns:   make(map[*conn]struct{}),
		lanes:   make([]bool, c.MaxConnections+1),
	}
	s.budget.limit = c.ServerBytes
	return s, nil
}

// Add offers e from now on.
func (s *Server) Add(e export.Export) error {
	for what, v := range map[string]string{"name": e.Name, "description": e.Description} {
		if len(v) > nbdproto.MaxString || !utf8.ValidString(v) || slices.Contains([]byte(v), 0) {
			return fmt.Errorf("nbd: the export's %s is not UTF-8 of at most %d bytes", what, nbdproto.MaxString)
		}
	}
	if e.Dev == nil {
		return fmt.Errorf("nbd: export %q has no device", e.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exports[e.Name] != nil {
		return fmt.Errorf("nbd: there is an export %q already", e.Name)
	}
	s.exports[e.Name] = &entry{Export: e, shim: s.shim(e.Dev), conns: make(map[*conn]struct{})}
	return nil
}

// An unaligner has other users beside this server, who must share the locks
// of its read-modify-write: one device may be open several times, and be
// exported by several servers.
type unaligner interface{ Unaligned() block.Device }

// shim returns the one shim of dev. Server.mu is held.
func (s *Server) shim(dev block.Device) *shim {
	for _, m := range s.rmw {
		if m.raw == dev {
			m.users++
			return m
		}
	}
	m := &shim{raw: dev, users: 1}
	if u, ok := dev.(unaligner); ok {
		m.dev = u.Unaligned()
	} else {
		m.dev = block.RMW(dev)
	}
	s.rmw = append(s.rmw, m)
	return m
}

// Remove stops offering the export name. See export.Server.
func (s *Server) Remove(ctx context.Context, name string) error {
	s.mu.Lock()
	e := s.exports[name]
	if e == nil {
		s.mu.Unlock()
		return fmt.Errorf("nbd: there is no export %q", name)
	}
	delete(s.exports, name)
	e.gone = true
	conns := keys(e.conns)
	s.mu.Unlock()

	err := end(ctx, conns)
	if err != nil {
		err = fmt.Errorf("nbd: export %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.shim.users--; e.shim.users == 0 {
		s.rmw = slices.DeleteFunc(s.rmw, func(m *shim) bool { return m == e.shim })
	}
	return err
}

// end drains conns until ctx ends, then cuts them.
func end(ctx context.Context, conns []*conn) error {
	// All are marked before the first is woken: nobody who sees one go can get
	// another through its negotiation.
	for _, c := range conns {
		c.draining.Store(true)
	}
	for _, c := range conns {
		c.drain()
	}
	var cut int
	for _, c := range conns {
		select {
		case <-c.done:
			continue
		case <-ctx.Done():
		}
		cut++
		c.abort(context.Cause(ctx))
	}
	if cut == 0 {
		return nil
	}
	// A cut connection ends as soon as the device lets its requests go, which
	// is at once unless the medium itself hangs.
	t := time.NewTimer(cutGrace)
	defer t.Stop()
	for i, c := range conns {
		select {
		case <-c.done:
		case <-t.C:
			return fmt.Errorf("%d connections still have requests in the device: %w", len(conns)-i, context.Cause(ctx))
		}
	}
	return fmt.Errorf("%d connections were cut before they had completed their requests: %w", cut, context.Cause(ctx))
}

const cutGrace = 5 * time.Second

// List returns the exports, sorted by name.
func (s *Server) List() []export.Export {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := make([]export.Export, 0, len(s.exports))
	for _, e := range s.exports {
		l = append(l, e.Export)
	}
	slices.SortFunc(l, func(a, b export.Export) int { return cmp.Compare(a.Name, b.Name) })
	return l
}

// Serve accepts connections from l until ctx ends. See export.Server. Its
// error is nil if ctx ended it and all requests were completed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var mine sync.Map // *conn: those of this listener
	err := s.accept(ctx, l, &mine)
	var conns []*conn
	mine.Range(func(k, _ any) bool {
		conns = append(conns, k.(*conn))
		return true
	})
	dctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), s.cfg.DrainTimeout,
		fmt.Errorf("not done within %v", s.cfg.DrainTimeout))
	defer cancel()
	return errors.Join(err, end(dctx, conns))
}

func (s *Server) accept(ctx context.Context, l net.Listener, mine *sync.Map) error {
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("nbd: the listener on %v was closed", l.Addr())
			}
			// Mostly out of descriptors: others may go, so wait and go on.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Log.Warn("nbd: accept", "err", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		c, err := s.newConn(nc)
		if err != nil {
			s.cfg.Log.Warn("nbd: connection refused", "peer", peer(nc), "err", err)
			nc.Close()
			continue
		}
		mine.Store(c, nil)
		go func() {
			c.run()
			mine.Delete(c)
		}()
	}
}

// newConn gives nc a lane number.
func (s *Server) newConn(nc net.Conn) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lane := 1 + slices.Index(s.lanes[1:], false)
	if lane == 0 {
		return nil, fmt.Errorf("there are %d connections already", s.cfg.MaxConnections)
	}
	s.lanes[lane] = true
	c := &conn{srv: s, nc: nc, lane: uint16(lane), peer: peer(nc), since: time.Now(), done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	s.conns[c] = struct{}{}
	return c, nil
}

// attach enters c among the users of e, unless e has been removed meanwhile.
func (s *Server) attach(c *conn, e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.gone {
		return false
	}
	e.conns[c] = struct{}{}
	c.mu.Lock()
	c.exp = e
	c.mu.Unlock()
	return true
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes[c.lane] = false
	delete(s.conns, c)
	if c.exp != nil {
		delete(c.exp.conns, c)
	}
}

// Find is for the handshake.
func (v view) Find(name string) (nbdproto.Export, uint32) {
	s := v.s
	s.mu.Lock()
	if name == "" && s.exports[""] == nil {
		name = s.cfg.Default
		if name == "" && len(s.exports) == 1 {
			for name = range s.exports {
			}
		}
	}
	e := s.exports[name]
	s.mu.Unlock()
	if e == nil {
		return nbdproto.Export{}, nbdproto.RepErrUnknown
	}
	return describe(e), 0
}

// List is for the handshake.
func (v view) List() []nbdproto.Export {
	l := v.s.List()
	r := make([]nbdproto.Export, len(l))
	for i, e := range l {
		r[i] = nbdproto.Export{Name: e.Name, Description: e.Description}
	}
	return r
}

// view is the server as the handshake sees it.
type view struct{ s *Server }

// describe makes an export's flags and sizes from what its device can do.
func describe(e *entry) nbdproto.Export {
	i := e.shim.raw.Info()
	// Several connections see one device: see the package comment.
	f := nbdproto.HasFlags | nbdproto.SendFlush | nbdproto.CanMultiConn | nbdproto.SendCache
	if e.ReadOnly || i.ReadOnly {
		f |= nbdproto.ReadOnly
	} else {
		// A device without FUA gets a write and a flush instead.
		f |= nbdproto.SendFUA | nbdproto.SendWriteZeroes
		if i.Discard != block.None {
			f |= nbdproto.SendTrim
		}
		if i.Zeroes == block.Native {
			f |= nbdproto.SendFastZero
		}
	}
	least := uint32(max(1, min(i.LogicalBlock, 64<<10)))
	return nbdproto.Export{
		Name: e.Name, Description: e.Description, Size: uint64(i.Size), Flags: f,
		MinBlock: least, PreferredBlock: preferred(i), MaxBlock: MaxRequest, Ref: e,
	}
}

// preferred is the size from which requests are efficient: a power of two of
// at least 4 KiB, up to the 32 MiB of the largest request.
func preferred(i block.Info) uint32 {
	p := 4096
	for p < max(i.LogicalBlock, i.PhysicalBlock, i.OptIO) && p < MaxRequest {
		p *= 2
	}
	return uint32(p)
}

// ConnInfo describes a connection.
type ConnInfo struct {
	Lane     uint16
	Peer     string
	Export   string // empty during the handshake
	Style    string // of replies: simple, structured, extended
	TLS      bool
	Since    time.Time
	InFlight int // requests that wait in the device
	Counters
}

// Counters are what a connection has been asked for. Reads and writes that
// failed are counted too.
type Counters struct {
	Reads, Writes, Flushes, Trims, Zeroes, Others uint64
	BytesRead, BytesWritten                       uint64
	Errors                                        uint64 // replies that tell one
	Deferred                                      uint64 // requests that went to a worker
}

// Connections describes the connections that there are, by lane.
func (s *Server) Connections() []ConnInfo {
	s.mu.Lock()
	conns := keys(s.conns)
	s.mu.Unlock()
	l := make([]ConnInfo, 0, len(conns))
	for _, c := range conns {
		l = append(l, c.info())
	}
	slices.SortFunc(l, func(a, b ConnInfo) int { return cmp.Compare(a.Lane, b.Lane) })
	return l
}

func keys[K comparable](m map[K]struct{}) []K {
	l := make([]K, 0, len(m))
	for k := range m {
		l = append(l, k)
	}
	return l
}

func peer(nc net.Conn) string {
	if a := nc.RemoteAddr(); a != nil {
		return a.Network() + ":" + a.String()
	}
	return "unknown"
}

// counters is Counters as its lane keeps it; the lane alone writes all but
// errors.
type counters struct {
	reads, writes, flushes, trims, zeroes, others atomic.Uint64
	bytesRead, bytesWritten, errors, deferred     atomic.Uint64
}
