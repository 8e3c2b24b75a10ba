package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyway/control"
	"keyway/dm"
)

// restore brings up what the configuration declares and what the state
// remembers beside it: keys, then devices, each after those that it stands
// on, then exports. What does not work is logged and does not keep the others
// from starting; the error is of a configuration that no start could satisfy.
func (d *Daemon) restore(ctx context.Context, s state) error {
	if err := d.checkExports(s); err != nil {
		return err
	}
	d.restoreKeys(ctx, s.Keys)
	for _, c := range d.cfg.Devices {
		d.devices[c.Name] = &device{op: make(chan struct{}, 1), spec: specOf(c.Create), config: true, problem: notYet}
	}
	for _, spec := range s.Devices {
		if err := checkName(spec.Name); err != nil || spec.Backend == "" && spec.Live == nil {
			d.log.Error("device of the state is malformed", "device", spec.Name, "err", err)
			continue
		}
		if d.devices[spec.Name] != nil {
			d.log.Warn("device is declared by the configuration, which wins over the state", "device", spec.Name)
			continue
		}
		d.devices[spec.Name] = &device{op: make(chan struct{}, 1), spec: spec, problem: notYet}
	}
	d.bringUp(ctx)
	for _, v := range d.devices {
		if v.spec.Deferred && v.m != nil {
			if err := v.m.Remove(ctx, dm.RemoveOptions{Deferred: true}); err != nil {
				d.log.Warn("deferred removal", "device", v.spec.Name, "err", err)
			}
		}
	}
	d.restoreExports(ctx, s.Exports)
	return ctx.Err()
}

// checkExports refuses exports of the configuration whose device nobody
// declares.
func (d *Daemon) checkExports(s state) error {
	var names []string
	for _, c := range d.cfg.Devices {
		names = append(names, c.Name)
	}
	for _, spec := range s.Devices {
		names = append(names, spec.Name)
	}
	var errs []error
	for _, e := range d.cfg.Exports {
		if !slices.Contains(names, e.Device) {
			errs = append(errs, fmt.Errorf("configuration: export %q: device %q does not exist%s", e.Name, e.Device, didYouMean(e.Device, slices.Clone(names))))
		}
	}
	return errors.Join(errs...)
}

// notYet is the problem of a device that nobody has tried to bring up.
const notYet = "not started"

// bringUp tries every device that has a problem. Called at the start, and with
// multi and the tokens of those devices held.
func (d *Daemon) bringUp(ctx context.Context) {
	r := &revival{d: d, tried: map[*device]bool{}}
	d.mu.Lock()
	names := sortedKeys(d.devices)
	d.mu.Unlock()
	for _, name := range names {
		if err := r.bring(ctx, name); err != nil {
			d.log.Error("device does not work", "device", name, "err", err, "hint", Hint(err))
		}
	}
}

// A revival brings up devices in the order of their dependencies, each once.
type revival struct {
	d     *Daemon
	tried map[*device]bool
	path  []string // devices whose tables are being built
	only  map[*device]bool
}

// bring makes the device work if it does not.
func (r *revival) bring(ctx context.Context, name string) error {
	d := r.d
	d.mu.Lock()
	v := d.devices[name]
	if v == nil || v.making || v.problem == "" || r.only != nil && !r.only[v] {
		d.mu.Unlock()
		return nil
	}
	d.mu.Unlock()
	if slices.Contains(r.path, name) {
		return fmt.Errorf("device %q would stand on itself: %s", name, strings.Join(append(r.path, name), " on "))
	}
	if r.tried[v] {
		return nil // what it stands on is reported by who opens it
	}
	r.path = append(r.path, name)
	err := r.build(ctx, v)
	r.path = r.path[:len(r.path)-1]
	r.tried[v] = true
	d.mu.Lock()
	v.problem = ""
	if err != nil {
		v.problem = err.Error()
	}
	d.mu.Unlock()
	return err
}

func (r *revival) build(ctx context.Context, v *device) error {
	d := r.d
	e := env{d: d, before: func(ctx context.Context, name string) error {
		if err := r.bring(ctx, name); err != nil {
			return fmt.Errorf("device %q: %w", name, err)
		}
		return nil
	}}
	d.mu.Lock()
	m, s := v.m, v.spec
	d.mu.Unlock()
	if s.Backend != "" {
		if m != nil {
			return nil
		}
		// A medium that the state knows and that is not there must not come
		// back empty: perhaps only its file system is not mounted.
		m, err := d.makeLeaf(ctx, v, s, v.config && s.Size > 0)
		if err != nil {
			return err
		}
		return d.asBefore(ctx, v, m, s, e)
	}
	if m == nil {
		m = dm.New(s.Name, d.options(v))
		d.mu.Lock()
		v.m = m
		d.mu.Unlock()
	}
	if st := m.State(); st.Live && st.Suspended {
		return d.renew(ctx, v, m, s, e)
	}
	err := d.reloadText(ctx, m, *s.Live, e, dm.SuspendOptions{})
	if errors.Is(err, dm.ErrImmutable) {
		err = fmt.Errorf("%w, and has lost a key: \"keyway remove\" and \"keyway create\" make the device anew", err)
	}
	if err != nil {
		return err
	}
	return d.asBefore(ctx, v, m, s, e)
}

// renew loads the live table of a suspended device anew, because a key of it
// has been replaced; resume makes it live. A suspended device stays so.
func (d *Daemon) renew(ctx context.Context, v *device, m *dm.Mapped, s deviceSpec, e env) error {
	if s.Inactive != nil {
		return errors.New("its table can be built anew once it is resumed")
	}
	t, err := dm.Parse(ctx, s.Live.Text, e, dm.ParseOptions{ReadOnly: s.Live.ReadOnly})
	if err == nil {
		err = m.Load(ctx, t)
	}
	if err == nil {
		d.edit(v, func(s *deviceSpec) { s.Inactive = s.Live })
	}
	return err
}

// asBefore gives a device whose live table works its inactive table and its
// suspension back.
func (d *Daemon) asBefore(ctx context.Context, v *device, m *dm.Mapped, s deviceSpec, e env) error {
	d.mu.Lock()
	v.m = m
	d.mu.Unlock()
	if s.Inactive != nil {
		t, err := dm.Parse(ctx, s.Inactive.Text, e, dm.ParseOptions{ReadOnly: s.Inactive.ReadOnly})
		if err == nil {
			err = m.Load(ctx, t)
		}
		if err != nil {
			// It was never in use; the operator loads another.
			d.log.Warn("inactive table is dropped", "device", s.Name, "err", err)
			d.edit(v, func(s *deviceSpec) { s.Inactive = nil })
		}
	}
	if s.Suspended {
		return m.Suspend(ctx, dm.SuspendOptions{})
	}
	return nil
}

// revive tries again every device that has a problem; the error is that of
// v, if it is not nil.
func (d *Daemon) revive(ctx context.Context, v *device) error {
	if err := take(ctx, d.multi, "another change of several devices to end"); err != nil {
		return err
	}
	defer func() { <-d.multi }()
	d.mu.Lock()
	var broken []*device
	for _, name := range sortedKeys(d.devices) {
		if b := d.devices[name]; b.problem != "" && !b.making {
			broken = append(broken, b)
		}
	}
	d.mu.Unlock()
	if len(broken) == 0 {
		return nil
	}
	r := &revival{d: d, tried: map[*device]bool{}, only: map[*device]bool{}}
	for _, b := range broken {
		// Only v is worth waiting for: a change of another may take for ever.
		select {
		case b.op <- struct{}{}:
		default:
			if b != v {
				continue
			}
			if err := take(ctx, b.op, "another change of the device to end"); err != nil {
				return err
			}
		}
		defer func() { <-b.op }()
		r.only[b] = true
	}
	var mine error
	for _, b := range broken {
		d.mu.Lock()
		name := b.spec.Name
		d.mu.Unlock()
		err := r.bringSoon(ctx, name, b == v)
		if b == v {
			if d.mu.Lock(); err == nil && b.problem != "" {
				err = errors.New(b.problem) // it was tried on the way to another
			}
			d.mu.Unlock()
			mine = err
		}
		d.mu.Lock()
		works := r.only[b] && b.problem == ""
		d.mu.Unlock()
		if works {
			d.log.Info("device works again", "device", name)
		}
	}
	return mine
}

// bringSoon is bring; only what was asked for may take its time. Requests that
// hang beneath another device hold its new table up.
func (r *revival) bringSoon(ctx context.Context, name string, asked bool) error {
	if !asked {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, revivalLimit, fmt.Errorf("not done within %v", revivalLimit))
		defer cancel()
	}
	return r.bring(ctx, name)
}

// revivalLimit is for one device that nobody asked for.
const revivalLimit = time.Second

// wake tries again what did not work, after something has appeared that it may
// have waited for. What still does not is logged and shown.
func (d *Daemon) wake(ctx context.Context) {
	if err := d.revive(ctx, nil); err != nil {
		d.log.Warn("devices that do not work are not tried again", "err", err)
	}
	d.offer(ctx)
}

// restoreExports begins to serve. An export that does not work is listed with
// the reason and tried again when a device comes to life.
func (d *Daemon) restoreExports(ctx context.Context, saved []control.Export) {
	for _, spec := range d.cfg.Exports {
		d.addRestored(ctx, spec, true)
	}
	for _, spec := range saved {
		if d.findExport(spec.Name, spec.NBD) != nil {
			d.log.Warn("export is declared by the configuration, which wins over the state", "export", spec.Name, "nbd", spec.NBD)
			continue
		}
		d.addRestored(ctx, spec, false)
	}
}

func (d *Daemon) addRestored(ctx context.Context, spec control.Export, config bool) {
	e := &export{spec: spec, config: config}
	d.mu.Lock()
	e.dev = d.devices[spec.Device]
	d.exports = append(d.exports, e)
	d.mu.Unlock()
	if err := d.startExport(ctx, e); err != nil {
		d.log.Error("export does not work", "export", spec.Name, "nbd", spec.NBD, "err", err)
	}
}
