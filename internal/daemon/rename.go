package daemon

import (
	"context"
	"errors"
	"fmt"

	"keyway/control"
	"keyway/dm"
	"keyway/internal/point"
)

// rename changes a device's name, also in the tables and exports that name it.
func (d *Daemon) rename(ctx context.Context, name, to string) (ch control.Changed, err error) {
	if err := checkName(to); err != nil {
		return ch, err
	}
	if err := take(ctx, d.multi, "another change of several devices to end"); err != nil {
		return ch, err
	}
	defer func() { <-d.multi }()
	named, err := d.beginRename(ctx)
	if err != nil {
		return ch, err
	}
	defer named()
	v, done, err := d.change(ctx, name)
	if err != nil {
		return ch, err
	}
	defer done()
	parents, err := d.takeParents(ctx, name)
	if err != nil {
		return ch, err
	}
	defer func() {
		for _, p := range parents {
			<-p.op
		}
	}()
	point.At("daemon: parents taken")
	if err := d.setName(v, name, to); err != nil {
		return ch, err
	}
	if err := d.renameAbove(ctx, parents, name, to); err != nil {
		back := d.setName(v, to, name)
		return ch, errors.Join(err, back, d.renameAbove(ctx, parents, to, name))
	}
	if v.config {
		ch.Warnings = append(ch.Warnings, configWarning("device", name))
	}
	return ch, d.saveWhat("device", to, "has its new name, but after a restart it will have the old one")
}

// takeParents takes the tokens of the devices whose tables name the device.
func (d *Daemon) takeParents(ctx context.Context, name string) (taken []*device, err error) {
	d.mu.Lock()
	var all []*device
	for _, n := range sortedKeys(d.devices) {
		if v := d.devices[n]; n != name && !v.making && v.spec.names(name) {
			all = append(all, v)
		}
	}
	d.mu.Unlock()
	for _, v := range all {
		if err = take(ctx, v.op, fmt.Sprintf("a change of device %q, which stands on %q, to end", v.spec.Name, name)); err == nil {
			taken = append(taken, v)
			if v.m != nil && v.m.State().Suspended {
				err = fmt.Errorf("device %q, which stands on %q, is suspended: its table cannot get the new name", v.spec.Name, name)
			}
		}
		if err != nil {
			for _, v := range taken {
				<-v.op
			}
			return nil, err
		}
	}
	return taken, nil
}

// names reports whether a table of s has name as a word of its own.
func (s *deviceSpec) names(name string) bool {
	for _, t := range []*tableSpec{s.Live, s.Inactive} {
		if t != nil && renameInTable(t.Text, name, name+"x") != t.Text {
			return true
		}
	}
	return false
}

func (d *Daemon) setName(v *device, from, to string) error {
	d.mu.Lock()
	if v.gone { // at its last close, for which it needs no token
		defer d.mu.Unlock()
		return d.noDevice(from)
	}
	if d.devices[to] != nil {
		d.mu.Unlock()
		return fmt.Errorf("device %q: cannot become %q: %w", from, to, errExists)
	}
	delete(d.devices, from)
	d.devices[to] = v
	v.spec.Name = to
	for _, e := range d.exports {
		if e.dev == v {
			e.spec.Device = to
		}
	}
	m := v.m
	d.mu.Unlock()
	if m != nil {
		m.Rename(to)
	}
	return nil
}

// renameAbove gives the tables above a device its new name. Their requests
// wait for a moment, as at any reload.
func (d *Daemon) renameAbove(ctx context.Context, parents []*device, from, to string) error {
	for _, p := range parents {
		d.mu.Lock()
		m, live, inactive := p.m, p.spec.Live, p.spec.Inactive
		d.mu.Unlock()
		st := m.State()
		if live != nil {
			t := tableSpec{renameInTable(live.Text, from, to), live.ReadOnly}
			if st.Live {
				if err := d.reloadText(ctx, m, t, env{d: d}, dm.SuspendOptions{}); err != nil {
					return err
				}
			}
			d.edit(p, func(s *deviceSpec) { s.Live = &t })
		}
		if inactive != nil {
			t := tableSpec{renameInTable(inactive.Text, from, to), inactive.ReadOnly}
			table, err := dm.Parse(ctx, t.Text, env{d: d}, dm.ParseOptions{ReadOnly: t.ReadOnly})
			if err == nil {
				err = m.Load(ctx, table)
			}
			if err != nil {
				return err
			}
			d.edit(p, func(s *deviceSpec) { s.Inactive = &t })
		}
	}
	return nil
}
