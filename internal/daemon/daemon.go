// Package daemon is keyway's daemon: devices, keys and exports, what the
// configuration declares of them, what the control socket changes, and what of
// that survives the process.
//
// Lock order:
//
//	Daemon.multi, a token: whoever changes several devices at once
//	  Daemon.naming: whoever builds a table of names, or changes a name
//	    device.op, a token: one change of a device at a time
//	      Daemon.saving: one save of the state at a time
//	        Daemon.mu: maps and specs; nothing of dm is called with it held
//	hub.mu: taken last, with locks of dm and keyslot held: events come with them
//	Daemon.wiring, a token: exports and their servers are put together
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keyway/control"
	"keyway/dm"
	"keyway/internal/trace"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
	"keyway/keystore"

	_ "keyway/dm/target" // the targets that tables name
)

// Options of a daemon.
type Options struct {
	Config  *Config // nil: nothing is declared
	State   string  // directory
	Socket  string  // of control
	Version string
	Log     *slog.Logger

	// Trace is told of every request that uses a keyslot, of an engine or of the
	// fallback; nil: nobody is. It stays the caller's, who closes it after Close.
	Trace *trace.Writer

	// Listeners that a service manager has opened: "control", or an export's
	// address as "unix:/path" or "tcp:host:port".
	Listeners map[string]net.Listener
}

// A Daemon serves devices. Make it with Start.
type Daemon struct {
	o        Options
	cfg      Config
	log      *slog.Logger
	state    *stateDir
	keys     keystore.Store
	fallback *keyslot.Manager
	control  *controlServer

	ending context.Context // done when the daemon begins to end
	end    context.CancelFunc

	waiting atomic.Int64 // control requests that wait for an event
	events  hub

	multi  chan struct{}
	wiring chan struct{}
	saving sync.Mutex

	mu        sync.Mutex
	devices   map[string]*device
	implicit  map[string]*implicitLeaf
	exports   []*export
	servers   map[string]*nbdServer
	configKey map[string]bool // keys that the configuration declares
	emulated  *emul.Hardware  // made with the first engine that needs it
	naming    naming
	calls     calls
	writing   map[*dm.Mapped]bool // whose file systems calls write to
	closing   bool
}

// A device is one named device.
type device struct {
	op chan struct{} // token

	// Guarded by Daemon.mu.
	m       *dm.Mapped // nil: a leaf that does not work
	spec    deviceSpec
	config  bool   // declared by the configuration
	problem string // why it has no live table, or not the right one
	gone    bool
	making  bool   // not there yet for anybody else
	unmake  func() // takes away a medium that its creation made; used with the token

	announced atomic.Bool // its events are told
}

// fallback of every device: one for the process, as in the kernel, because
// each of its slots costs memory that is locked.
var processFallback = sync.OnceValue(func() *keyslot.Manager {
	return keyslot.New(soft.New("fallback", soft.FallbackSlots))
})

// Start brings up everything that the configuration declares and that the
// state directory remembers, then listens for control. A device or export
// that does not work does not keep the others from starting; it is logged
// and shown.
func Start(ctx context.Context, o Options) (d *Daemon, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d = &Daemon{
		o: o, log: o.Log, fallback: processFallback(),
		multi: make(chan struct{}, 1), wiring: make(chan struct{}, 1),
		devices: map[string]*device{}, implicit: map[string]*implicitLeaf{}, servers: map[string]*nbdServer{},
		configKey: map[string]bool{},
	}
	d.events.daemon = newDaemonWord()
	d.ending, d.end = context.WithCancel(context.Background())
	if o.Config != nil {
		d.cfg = *o.Config
	}
	if d.cfg.Drain == 0 {
		d.cfg.Drain = 10 * time.Second
	}
	if d.state, err = openState(o.State); err != nil {
		return nil, err
	}
	s, err := d.state.load()
	if err != nil {
		return nil, errors.Join(err, d.state.close())
	}
	d.warnOfKeyMemory()
	// Bound before anything is started, so that a second daemon changes
	// nothing; clients that come early wait.
	l, err := d.controlListener()
	if err != nil {
		return nil, errors.Join(err, d.state.close())
	}
	d.trace(d.fallback)
	if err = d.restore(ctx, s); err == nil {
		err = d.save()
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), d.Close(context.WithoutCancel(ctx)))
	}
	d.announceAll()
	d.control = serveControl(d, l)
	return d, nil
}

// Close drains and ends the daemon: control first, then the exports, which
// complete what clients have begun, then the devices, flushed, from the top
// down, then the keys, wiped. ctx bounds all of it.
func (d *Daemon) Close(ctx context.Context) error {
	d.mu.Lock()
	d.closing = true
	d.mu.Unlock()
	d.end()
	var errs []error
	if d.control != nil {
		errs = append(errs, d.control.close(ctx))
	}
	errs = append(errs, d.endCalls(ctx))
	errs = append(errs, d.closeExports(ctx), d.closeDevices(ctx), d.keys.Close(ctx), d.state.close())
	if d.o.Trace != nil {
		d.fallback.Trace(nil)
	}
	return errors.Join(errs...)
}

// closeDevices removes devices that nobody has open until none is left.
func (d *Daemon) closeDevices(ctx context.Context) error {
	d.mu.Lock()
	var left []*dm.Mapped
	for _, v := range d.devices {
		if v.m != nil {
			left = append(left, v.m)
		}
	}
	d.mu.Unlock()
	var errs []error
	for _, m := range left {
		if st := m.State(); st.Live && !st.Suspended && !st.ReadOnly {
			if err := flush(ctx, m); err != nil {
				errs = append(errs, fmt.Errorf("flush of %q: %w", m.Name(), err))
			}
		}
	}
	for len(left) > 0 {
		n := len(left)
		var last error
		left = slices.DeleteFunc(left, func(m *dm.Mapped) bool {
			if m.State().Open > 0 {
				return false
			}
			last = m.Remove(ctx, dm.RemoveOptions{})
			return last == nil || errors.Is(last, dm.ErrRemoved)
		})
		if len(left) == n {
			return errors.Join(append(errs, fmt.Errorf("%d devices are still open, such as %q: %w", n, left[0].Name(), last))...)
		}
	}
	return errors.Join(errs...)
}

// save records the present state.
func (d *Daemon) save() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	keys := d.keys.List()
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return nil
	}
	s := state{Devices: []deviceSpec{}, Keys: []keySpec{}, Exports: []control.Export{}}
	for _, name := range sortedKeys(d.devices) {
		if v := d.devices[name]; !v.config && !v.making && !v.gone {
			s.Devices = append(s.Devices, v.spec)
		}
	}
	for _, k := range keys {
		if !d.configKey[k.Name] && !k.Pending {
			c := k.Config
			s.Keys = append(s.Keys, keySpec{k.Name, c.Mode.String(), typeName(c.KeyType), c.DataUnitSize, c.DUNBytes, k.Source, k.File, k.Auto, k.Weak, k.From})
		}
	}
	for _, e := range d.exports {
		if !e.config {
			s.Exports = append(s.Exports, e.spec)
		}
	}
	d.mu.Unlock()
	return d.state.save(s)
}

// take waits for a token.
func take(ctx context.Context, token chan struct{}, what string) error {
	select {
	case token <- struct{}{}:
		return nil
	default:
	}
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
	}
}

// find returns a device that is there.
func (d *Daemon) find(name string) (*device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.devices[name]
	if v == nil || v.making || v.gone {
		return nil, d.noDevice(name)
	}
	return v, nil
}

var errEnding = errors.New("the daemon is ending")

// errNotFound marks errors about what does not exist.
var errNotFound = errors.New("not found")

type notFound struct{ error }

func (notFound) Is(target error) bool { return target == errNotFound }

// noDevice is called with mu held.
func (d *Daemon) noDevice(name string) error {
	err := notFound{fmt.Errorf("device %q does not exist", name)}
	var names []string
	for n, v := range d.devices {
		if !v.making {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return hint(err, "there are no devices; \"keyway create\" makes one")
	}
	if near := nearestName(name, names); near != "" {
		return hint(err, fmt.Sprintf("did you mean %q?", near))
	}
	return hint(err, "\"keyway ls\" lists the devices")
}

// change finds a device and takes its token; done gives it back.
func (d *Daemon) change(ctx context.Context, name string) (v *device, done func(), err error) {
	if v, err = d.find(name); err != nil {
		return nil, nil, err
	}
	if err := take(ctx, v.op, fmt.Sprintf("another change of device %q to end", name)); err != nil {
		return nil, nil, err
	}
	// It may have gone, or got another name, meanwhile.
	if again, err := d.find(name); err != nil || again != v {
		<-v.op
		d.mu.Lock()
		defer d.mu.Unlock()
		return nil, nil, d.noDevice(name)
	}
	return v, func() { <-v.op }, nil
}

// mapped returns the device itself, or why there is none.
func (d *Daemon) mapped(v *device) (*dm.Mapped, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.m == nil {
		return nil, hint(fmt.Errorf("device %q does not work: %s", v.spec.Name, v.problem),
			"put right what is wrong, then \"keyway resume\" tries again")
	}
	return v.m, nil
}

// options of the mapped device of v.
func (d *Daemon) options(v *device) dm.Options {
	return dm.Options{
		UUID:      v.spec.UUID,
		Immutable: v.spec.Immutable,
		Warn:      func(m *dm.Mapped, err error) { d.log.Warn("device", "device", m.Name(), "err", err) },
		Gone:      func(m *dm.Mapped) { d.gone(v, m) },
		Event:     func(_ *dm.Mapped, e dm.Event) { d.deviceEvent(v, e) },
	}
}

// gone is called when a device has been removed, by command or at its last
// close.
func (d *Daemon) gone(v *device, m *dm.Mapped) {
	d.mu.Lock()
	closing, present := d.closing, v.m == m && !v.gone
	if present && !closing {
		v.gone = true
		if d.devices[v.spec.Name] == v {
			delete(d.devices, v.spec.Name)
		}
	}
	name := v.spec.Name
	d.mu.Unlock()
	if !present || closing {
		return
	}
	d.log.Info("device removed", "device", name)
	if err := d.save(); err != nil {
		d.log.Error("device removed", "device", name, "err", err)
	}
}

// configWarning tells that a change of something declared lasts until the
// next start only.
func configWarning(what, name string) string {
	return fmt.Sprintf("%s %q is declared by the configuration: after a restart it is as declared there", what, name)
}
