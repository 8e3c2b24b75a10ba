package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"keyway/control"
	exports "keyway/export"
	"keyway/export/nbd"
	"keyway/internal/plural"

	"keyway/dm"
)

// An export is a device at an address.
type export struct {
	spec   control.Export // guarded by Daemon.mu
	config bool
	dev    *device // nil if there is none of that name

	// Guarded by the wiring token.
	server *nbdServer // nil: not serving
	handle *dm.Handle

	uri, problem string // guarded by Daemon.mu
}

// An nbdServer serves all exports of one address.
type nbdServer struct {
	addr   listenAddr
	tls    control.TLS // as configured; zero: none
	nbd    *nbd.Server
	bound  net.Addr
	cancel context.CancelFunc
	done   chan struct{} // closed when Serve has returned
	err    error         // of Serve
	users  int           // exports; guarded by the wiring token
}

func (d *Daemon) findExport(name, addr string) *export {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.exports {
		if e.spec.Name == name && e.spec.NBD == addr {
			return e
		}
	}
	return nil
}

// addExport offers a device, or changes nothing.
func (d *Daemon) addExport(ctx context.Context, r control.Export) (control.Export, error) {
	spec, err := normalExport(r)
	if err != nil {
		return r, err
	}
	v, err := d.find(spec.Device)
	if err != nil {
		return r, err
	}
	if d.findExport(spec.Name, spec.NBD) != nil {
		return r, fmt.Errorf("export %q at %s exists already", spec.Name, spec.NBD)
	}
	e := &export{spec: spec, dev: v}
	if err := d.startExport(ctx, e); err != nil {
		return r, err
	}
	d.mu.Lock()
	d.exports = append(d.exports, e)
	d.mu.Unlock()
	if err := d.save(); err != nil {
		d.mu.Lock()
		d.exports = slices.DeleteFunc(d.exports, func(o *export) bool { return o == e })
		d.mu.Unlock()
		return r, errors.Join(err, d.stopExport(ctx, e))
	}
	d.log.Info("export added", "export", spec.Name, "device", spec.Device, "nbd", spec.NBD)
	return d.describeExport(e), nil
}

// normalExport fills in what is left out and brings the address into one form.
func normalExport(r control.Export) (control.Export, error) {
	addr, inURI, err := parseNBD(r.NBD)
	if err != nil {
		return r, err
	}
	if addr.network == "unix" && !filepath.IsAbs(addr.addr) {
		return r, fmt.Errorf("socket path %q is not absolute", addr.addr)
	}
	name := r.Name
	switch {
	case name == "" && inURI != "":
		name = inURI
	case name == "":
		name = r.Device
	case inURI != "" && inURI != name:
		return r, fmt.Errorf("export %q: the URI %q names another", name, r.NBD)
	}
	if err := checkTLS(r.TLS); err != nil {
		return r, err
	}
	return control.Export{Name: name, Device: r.Device, NBD: addr.String(), ReadOnly: r.ReadOnly, TLS: r.TLS}, nil
}

func checkTLS(t *control.TLS) error {
	switch {
	case t == nil:
		return nil
	case t.Cert == "" || t.Key == "":
		return errors.New("TLS needs a certificate and its key")
	case t.ClientAuth && t.CA == "":
		return errors.New("TLS with client certificates needs the CA that signed them")
	}
	return nil
}

// startExport opens the device and offers it, on a listener that it makes if
// there is none at the address yet.
func (d *Daemon) startExport(ctx context.Context, e *export) (err error) {
	if err := take(ctx, d.wiring, "another change of exports to end"); err != nil {
		return err
	}
	defer func() { <-d.wiring }()
	uri := ""
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		e.uri = uri
		if e.problem = ""; err != nil {
			e.problem = err.Error()
		}
	}()
	d.mu.Lock()
	if e.dev == nil {
		e.dev = d.devices[e.spec.Device]
	}
	v, spec := e.dev, e.spec
	d.mu.Unlock()
	if v == nil {
		return fmt.Errorf("device %q does not exist", spec.Device)
	}
	m, err := d.mapped(v)
	if err != nil {
		return err
	}
	if !m.State().Live {
		d.mu.Lock()
		problem := v.problem
		d.mu.Unlock()
		return fmt.Errorf("device %q has no live table: %s", spec.Device, problem)
	}
	s, err := d.server(ctx, spec)
	if err != nil {
		return err
	}
	h, err := m.Open(fmt.Sprintf("export %q", spec.Name))
	if err == nil {
		if err = s.nbd.Add(exports.Export{Name: spec.Name, Description: "device " + spec.Device, Dev: h, ReadOnly: spec.ReadOnly}); err != nil {
			h.Close()
		}
	}
	if err != nil {
		return errors.Join(err, d.dropServer(s))
	}
	s.users++
	e.server, e.handle = s, h
	addr := s.addr
	if addr.network == "tcp" {
		addr.addr = s.bound.String()
	}
	uri = addr.uri(spec.Name, spec.TLS != nil)
	return nil
}

// offer tries again the exports that do not work.
func (d *Daemon) offer(ctx context.Context) {
	d.mu.Lock()
	var broken []*export
	for _, e := range d.exports {
		if e.problem != "" {
			broken = append(broken, e)
		}
	}
	d.mu.Unlock()
	for _, e := range broken {
		if err := d.startExport(ctx, e); err == nil {
			d.log.Info("export works again", "export", e.spec.Name, "nbd", e.spec.NBD)
		}
	}
}

// stopExport ends the export's connections and gives its device back.
func (d *Daemon) stopExport(ctx context.Context, e *export) error {
	if err := take(ctx, d.wiring, "another change of exports to end"); err != nil {
		return err
	}
	s, h := e.server, e.handle
	e.server, e.handle = nil, nil
	<-d.wiring
	if s == nil {
		return nil
	}
	d.mu.Lock()
	name := e.spec.Name
	d.mu.Unlock()
	// Without a limit a client that never ends would hold the command.
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.cfg.Drain, fmt.Errorf("not done within %v", d.cfg.Drain))
		defer cancel()
	}
	err := s.nbd.Remove(ctx, name)
	err = errors.Join(err, h.Close())
	d.wiring <- struct{}{} // whoever has it waits for no client
	s.users--
	err = errors.Join(err, d.dropServer(s))
	<-d.wiring
	return err
}

// removeExport ends one export.
func (d *Daemon) removeExport(ctx context.Context, r control.RemoveExport) (ch control.Changed, err error) {
	at := ""
	if r.NBD != "" {
		a, _, err := parseNBD(r.NBD)
		if err != nil {
			return ch, err
		}
		at = a.String()
	}
	d.mu.Lock()
	var found []*export
	var names, places []string
	for _, e := range d.exports {
		names = append(names, e.spec.Name)
		if e.spec.Name == r.Name && (at == "" || e.spec.NBD == at) {
			found = append(found, e)
			places = append(places, e.spec.NBD)
		}
	}
	if len(found) == 1 {
		d.exports = slices.DeleteFunc(d.exports, func(e *export) bool { return e == found[0] })
	}
	d.mu.Unlock()
	switch {
	case len(found) == 0:
		err := error(notFound{fmt.Errorf("export %q does not exist", r.Name)})
		if near := nearestName(r.Name, names); near != "" {
			err = hint(err, fmt.Sprintf("did you mean %q?", near))
		}
		return ch, err
	case len(found) > 1:
		return ch, hint(fmt.Errorf("there are %s %q", plural.Of(len(found), "export"), r.Name), fmt.Sprintf("say which with --nbd: %v", places))
	}
	e := found[0]
	if e.config {
		ch.Warnings = append(ch.Warnings, configWarning("export", r.Name))
	}
	if err := d.stopExport(ctx, e); err != nil {
		ch.Warnings = append(ch.Warnings, err.Error())
	}
	d.log.Info("export removed", "export", r.Name, "nbd", e.spec.NBD)
	return ch, d.saveWhat("export", r.Name, "is removed, but after a restart it will be there again")
}

// server returns the one server of the export's address. Called with wiring
// held.
func (d *Daemon) server(ctx context.Context, spec control.Export) (*nbdServer, error) {
	var t control.TLS
	if spec.TLS != nil {
		t = *spec.TLS
	}
	if s := d.servers[spec.NBD]; s != nil {
		if s.tls != t {
			return nil, fmt.Errorf("export %q: %s is served with other TLS options: one address has one set", spec.Name, spec.NBD)
		}
		return s, nil
	}
	addr, _, err := parseNBD(spec.NBD)
	if err != nil {
		return nil, err
	}
	s := &nbdServer{addr: addr, tls: t, done: make(chan struct{})}
	c := nbd.Config{
		MaxConnections: d.cfg.Connections, ServerBytes: d.cfg.Memory, DrainTimeout: d.cfg.Drain,
		Log: d.log.With("nbd", spec.NBD),
	}
	if spec.TLS != nil {
		if c.TLS, err = serverTLS(t); err != nil {
			return nil, fmt.Errorf("export %q: %w", spec.Name, err)
		}
		c.RequireTLS = true
	}
	if s.nbd, err = nbd.New(c); err != nil {
		return nil, err
	}
	l := d.o.Listeners[spec.NBD]
	delete(d.o.Listeners, spec.NBD)
	if l == nil {
		if l, err = listen(ctx, addr); err != nil {
			return nil, fmt.Errorf("export %q: %w", spec.Name, err)
		}
	}
	s.bound = l.Addr()
	if addr.network == "tcp" && spec.TLS == nil && !loopback(s.bound) {
		d.log.Warn("export is open to the network without TLS", "export", spec.Name, "nbd", spec.NBD)
	}
	sctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.done)
		s.err = s.nbd.Serve(sctx, l)
	}()
	d.mu.Lock()
	d.servers[spec.NBD] = s
	d.mu.Unlock()
	return s, nil
}

func loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// dropServer ends a server without exports. Called with wiring held.
func (d *Daemon) dropServer(s *nbdServer) error {
	if s.users > 0 {
		return nil
	}
	d.mu.Lock()
	delete(d.servers, s.addr.String())
	d.mu.Unlock()
	s.cancel()
	<-s.done
	return s.err
}

// closeExports ends all servers at once, each within its drain timeout.
func (d *Daemon) closeExports(ctx context.Context) error {
	if err := take(ctx, d.wiring, "a change of exports to end"); err != nil {
		return err
	}
	defer func() { <-d.wiring }()
	d.mu.Lock()
	all := make([]*nbdServer, 0, len(d.servers))
	for _, s := range d.servers {
		all = append(all, s)
	}
	opened := slices.Clone(d.exports)
	d.mu.Unlock()
	var errs []error
	for _, s := range all {
		s.cancel()
	}
	for _, s := range all {
		select {
		case <-s.done:
			errs = append(errs, s.err)
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("export server at %v: %w", s.addr, context.Cause(ctx)))
		}
	}
	for _, e := range opened {
		if e.handle != nil {
			errs = append(errs, e.handle.Close())
			e.handle, e.server = nil, nil
		}
	}
	return errors.Join(errs...)
}

func (d *Daemon) listExports() []control.Export {
	d.mu.Lock()
	all := slices.Clone(d.exports)
	d.mu.Unlock()
	list := []control.Export{}
	for _, e := range all {
		list = append(list, d.describeExport(e))
	}
	slices.SortFunc(list, func(a, b control.Export) int {
		return slices.Compare([]string{a.Name, a.NBD}, []string{b.Name, b.NBD})
	})
	return list
}

func (d *Daemon) describeExport(e *export) control.Export {
	d.mu.Lock()
	x := e.spec
	x.Config, x.State = e.config, "serving"
	if e.problem != "" {
		x.State = e.problem
	}
	s := d.servers[x.NBD]
	x.URI = e.uri
	d.mu.Unlock()
	if s == nil || e.problem != "" {
		return x
	}
	for _, c := range s.nbd.Connections() {
		if c.Export == x.Name {
			x.Connections = append(x.Connections, control.Connection{
				Peer: c.Peer, Since: c.Since, Style: c.Style, TLS: c.TLS, InFlight: c.InFlight,
				Reads: c.Reads, Writes: c.Writes, BytesRead: c.BytesRead, BytesWritten: c.BytesWritten, Errors: c.Errors,
			})
		}
	}
	return x
}
