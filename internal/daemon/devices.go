package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"keyway/backend"
	"keyway/block"
	"keyway/control"
	"keyway/dm"
	"keyway/internal/point"
)

// create makes a device, or nothing.
func (d *Daemon) create(ctx context.Context, r control.Create) (control.Changed, error) {
	if err := checkName(r.Name); err != nil {
		return control.Changed{}, err
	}
	switch {
	case r.Table == "" && r.Backend == "" && r.Size == 0 && r.Engine == "":
		return control.Changed{}, fmt.Errorf("device %q: the table has no rows", r.Name)
	case (r.Table == "") == (r.Backend == ""):
		return control.Changed{}, fmt.Errorf("device %q: either a table or a backend", r.Name)
	case r.Backend != "" && r.Immutable:
		return control.Changed{}, fmt.Errorf("device %q: immutable goes with a table: a leaf device has none that could change", r.Name)
	case r.Table != "" && (r.Size != 0 || r.Engine != ""):
		return control.Changed{}, fmt.Errorf("device %q: size and engine belong to a backend, not to a table", r.Name)
	}
	if err := d.createSpec(ctx, specOf(r)); err != nil {
		return control.Changed{}, err
	}
	d.log.Info("device created", "device", r.Name)
	d.wake(ctx) // others may have waited for a device of this name
	return control.Changed{}, nil
}

func (d *Daemon) createSpec(ctx context.Context, spec deviceSpec) error {
	done, err := d.beginTable(ctx)
	if err != nil {
		return err
	}
	defer done()
	v, err := d.reserve(spec.Name, spec)
	if err != nil {
		return err
	}
	defer func() { <-v.op }()
	m, err := d.make(ctx, v, env{d: d})
	if err == nil {
		d.mu.Lock()
		v.m, v.making = m, false
		d.mu.Unlock()
		if err = d.save(); err != nil {
			d.mu.Lock()
			v.making = true // nobody opens it any more
			d.mu.Unlock()
			err = errors.Join(err, m.Remove(ctx, dm.RemoveOptions{}))
			if v.unmake != nil {
				v.unmake()
			}
		}
	}
	if err == nil {
		d.announce(v, spec.summary())
	}
	if err != nil {
		d.mu.Lock()
		v.gone = true
		delete(d.devices, spec.Name)
		d.mu.Unlock()
	}
	return err
}

func specOf(r control.Create) deviceSpec {
	s := deviceSpec{Name: r.Name, UUID: r.UUID, Backend: r.Backend, Size: r.Size, Engine: r.Engine, Immutable: r.Immutable}
	if r.Table != "" {
		s.Live = &tableSpec{Text: r.Table, ReadOnly: r.ReadOnly}
	} else {
		s.ReadOnly = r.ReadOnly
	}
	return s
}

// summary says what the device is, for people.
func (s *deviceSpec) summary() string {
	if s.Backend == "" {
		return "with a table"
	}
	e, _ := parseEngine(s.Engine)
	return fmt.Sprintf("on %s, engine %s", s.Backend, e.name)
}

// reserve takes a name, and the token of the device that will have it.
func (d *Daemon) reserve(name string, spec deviceSpec) (*device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return nil, errEnding
	}
	if d.devices[name] != nil {
		return nil, fmt.Errorf("device %q: %w", name, errExists)
	}
	if spec.UUID != "" {
		for _, v := range d.devices {
			if v.spec.UUID == spec.UUID {
				return nil, fmt.Errorf("device %q: uuid %q is that of device %q", name, spec.UUID, v.spec.Name)
			}
		}
	}
	v := &device{op: make(chan struct{}, 1), spec: spec, making: true}
	v.op <- struct{}{}
	d.devices[name] = v
	return v, nil
}

var errExists = errors.New("there is a device of that name already")

// make builds the mapped device of v's spec, live if all goes well.
func (d *Daemon) make(ctx context.Context, v *device, e env) (*dm.Mapped, error) {
	d.mu.Lock()
	s := v.spec
	d.mu.Unlock()
	if s.Backend != "" {
		return d.makeLeaf(ctx, v, s, s.Size > 0)
	}
	m := dm.New(s.Name, d.options(v))
	return m, d.reloadText(ctx, m, *s.Live, e, dm.SuspendOptions{})
}

// makeLeaf opens the backend; create says whether it may make the medium.
func (d *Daemon) makeLeaf(ctx context.Context, v *device, s deviceSpec, create bool) (*dm.Mapped, error) {
	engine, err := parseEngine(s.Engine)
	if err != nil {
		return nil, err
	}
	dev, err := backend.Open(ctx, s.Backend, backend.Options{Size: s.Size, ReadOnly: s.ReadOnly, Create: create})
	if err != nil {
		return nil, err
	}
	slots, stop, err := d.makeEngine(engine, s.Name)
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	d.trace(slots)
	m, err := dm.NewLeaf(s.Name, dm.Leaf{Dev: dev, Text: s.Backend, Engine: slots, Fallback: d.fallback, Closing: stop}, d.options(v))
	if u, ok := dev.(interface{ Unmake() }); ok {
		if err != nil {
			u.Unmake()
		}
		v.unmake = u.Unmake
	}
	return m, err
}

// reloadText makes m's table what the text says, live at once.
func (d *Daemon) reloadText(ctx context.Context, m *dm.Mapped, t tableSpec, e env, o dm.SuspendOptions) error {
	if err := NoKeys(t.Text); err != nil {
		return err
	}
	table, err := dm.Parse(ctx, t.Text, e, dm.ParseOptions{ReadOnly: t.ReadOnly})
	if err != nil {
		return err
	}
	point.At("daemon: table built")
	return strandsHint(m.Reload(ctx, table, o))
}

// load fills the inactive slot.
func (d *Daemon) load(ctx context.Context, name string, r control.Load) (control.Changed, error) {
	done, err := d.beginTable(ctx)
	if err != nil {
		return control.Changed{}, err
	}
	defer done()
	return d.update(ctx, name, func(v *device, m *dm.Mapped) error {
		if err := NoKeys(r.Table); err != nil {
			return err
		}
		table, err := dm.Parse(ctx, r.Table, env{d: d}, dm.ParseOptions{ReadOnly: r.ReadOnly})
		if err != nil {
			return err
		}
		point.At("daemon: table built")
		if err := m.Load(ctx, table); err != nil {
			return err
		}
		d.edit(v, func(s *deviceSpec) {
			s.Inactive = &tableSpec{Text: m.TableText(true, dm.StatusTable), ReadOnly: r.ReadOnly}
		})
		return nil
	})
}

// clear empties the inactive slot.
func (d *Daemon) clear(ctx context.Context, name string) (control.Changed, error) {
	return d.update(ctx, name, func(v *device, m *dm.Mapped) error {
		if err := m.Clear(ctx); err != nil {
			return err
		}
		d.edit(v, func(s *deviceSpec) { s.Inactive = nil })
		return nil
	})
}

// reload is load, suspend and resume as one step.
func (d *Daemon) reload(ctx context.Context, name string, r control.Load) (control.Changed, error) {
	done, err := d.beginTable(ctx)
	if err != nil {
		return control.Changed{}, err
	}
	ch, err := d.update(ctx, name, func(v *device, m *dm.Mapped) error {
		err := d.reloadText(ctx, m, tableSpec{Text: r.Table, ReadOnly: r.ReadOnly}, env{d: d}, dm.SuspendOptions{NoFlush: r.NoFlush, Revoke: r.Revoke})
		if err != nil {
			return err
		}
		point.At("daemon: reloaded")
		d.nowLive(v, m, r.ReadOnly)
		return nil
	})
	done()
	d.wakeLost(ctx, name)
	return ch, err
}

// nowLive records the table that has become live. It took the place of the
// inactive one, and the device is not suspended. It may have lost a key since it was
// built.
func (d *Daemon) nowLive(v *device, m *dm.Mapped, readOnly bool) {
	text := m.TableText(false, dm.StatusTable)
	d.mu.Lock()
	defer d.mu.Unlock()
	v.spec.Live = &tableSpec{Text: text, ReadOnly: readOnly}
	v.spec.Inactive, v.spec.Suspended, v.problem = nil, false, ""
	if lost := m.LostKeys(); lost != nil {
		v.problem = lostKey(lost[0])
	}
}

// suspend stops the device's requests.
func (d *Daemon) suspend(ctx context.Context, name string, r control.Suspend) (control.Changed, error) {
	return d.update(ctx, name, func(v *device, m *dm.Mapped) error {
		if err := m.Suspend(ctx, dm.SuspendOptions{NoFlush: r.NoFlush}); err != nil {
			return err
		}
		d.edit(v, func(s *deviceSpec) { s.Suspended = true })
		return nil
	})
}

// resume makes the inactive table live and lets requests in. Of a device that
// does not work it tries again what did not succeed.
func (d *Daemon) resume(ctx context.Context, name string) (control.Changed, error) {
	v, err := d.find(name)
	if err != nil {
		return control.Changed{}, err
	}
	d.mu.Lock()
	m := v.m
	broken := v.problem != "" && v.spec.Inactive == nil
	d.mu.Unlock()
	if broken && (m == nil || !m.State().Live) {
		if err := d.revive(ctx, v); err != nil {
			return control.Changed{}, err
		}
	}
	ch, err := d.update(ctx, name, func(v *device, m *dm.Mapped) error {
		had := m.State().Inactive
		if err := m.Resume(ctx); err != nil {
			return strandsHint(err)
		}
		if had {
			d.nowLive(v, m, m.State().ReadOnly)
		}
		d.edit(v, func(s *deviceSpec) { s.Suspended = false })
		return nil
	})
	d.wakeLost(ctx, name)
	return ch, err
}

// update changes a device and records it.
func (d *Daemon) update(ctx context.Context, name string, f func(*device, *dm.Mapped) error) (ch control.Changed, err error) {
	v, done, err := d.change(ctx, name)
	if err != nil {
		return ch, err
	}
	defer done()
	m, err := d.mapped(v)
	if err != nil {
		return ch, err
	}
	if err := f(v, m); err != nil {
		return ch, err
	}
	if v.config {
		ch.Warnings = append(ch.Warnings, configWarning("device", name))
	}
	return ch, d.saveWhat("device", name, "is changed, but after a restart it will be as before")
}

// saveWhat saves the state, and says what is true if that fails.
func (d *Daemon) saveWhat(kind, name, but string) error {
	if err := d.save(); err != nil {
		return fmt.Errorf("%s %q %s: %w", kind, name, but, err)
	}
	return nil
}

func (d *Daemon) edit(v *device, f func(*deviceSpec)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&v.spec)
}

// remove takes a device away.
func (d *Daemon) remove(ctx context.Context, name string, r control.Remove) (ch control.Changed, err error) {
	v, done, err := d.change(ctx, name)
	if err != nil {
		return ch, err
	}
	defer done()
	d.mu.Lock()
	m, config := v.m, v.config
	d.mu.Unlock()
	if config {
		ch.Warnings = append(ch.Warnings, configWarning("device", name))
	}
	if m == nil {
		d.mu.Lock()
		v.gone = true
		delete(d.devices, name)
		d.mu.Unlock()
		d.events.publish(control.Event{Kind: control.EventRemoved, Device: name})
		return ch, d.saveWhat("device", name, "is removed, but after a restart it will be there again")
	}
	if r.Force {
		if err := d.hollow(ctx, v, m); err != nil {
			return ch, err
		}
	}
	if err := m.Remove(ctx, dm.RemoveOptions{Deferred: r.Deferred}); err != nil {
		if errors.Is(err, block.ErrBusy) {
			err = hint(err, busyHint(r.Force && !m.State().Leaf))
		}
		return ch, err
	}
	if m.State().DeferredRemove {
		d.edit(v, func(s *deviceSpec) { s.Deferred = true })
	}
	return ch, d.saveWhat("device", name, "is removed, but after a restart it will be there again")
}

func busyHint(hollow bool) string {
	if hollow {
		return "its table is an error target now and nothing beneath is in use; it goes when those who have it open are done: --deferred waits for that"
	}
	return "end what uses it, or remove it at its last close with --deferred"
}

// hollow replaces the table with one of errors, so that everything beneath is
// released, whoever has the device open.
func (d *Daemon) hollow(ctx context.Context, v *device, m *dm.Mapped) error {
	st := m.State()
	if st.Leaf || !st.Live {
		return nil
	}
	text := fmt.Sprintf("0 %d error", st.Size>>9)
	err := d.reloadText(ctx, m, tableSpec{Text: text}, env{d: d}, dm.SuspendOptions{NoFlush: true})
	if errors.Is(err, dm.ErrImmutable) {
		err = hint(err, "its table cannot be replaced by one of errors; end what uses it, or remove it at its last close with --deferred")
	}
	if err != nil {
		return fmt.Errorf("forced removal of %q: %w", m.Name(), err)
	}
	d.nowLive(v, m, false)
	return d.save()
}

// message does what words say to the device, or gives them to the target at a
// sector of it. What a target was told does not outlive the daemon.
func (d *Daemon) message(ctx context.Context, name string, r control.Message) (control.Text, error) {
	if len(r.Words) == 0 {
		return control.Text{}, errors.New("a message needs a word")
	}
	if r.Words[0] == "@cancel_deferred_remove" {
		if len(r.Words) > 1 {
			return control.Text{}, fmt.Errorf("message %s takes no arguments", r.Words[0])
		}
		_, err := d.update(ctx, name, func(v *device, m *dm.Mapped) error {
			if err := m.CancelDeferred(); err != nil {
				return err
			}
			d.edit(v, func(s *deviceSpec) { s.Deferred = false })
			return nil
		})
		return control.Text{}, err
	}
	v, err := d.find(name)
	if err != nil {
		return control.Text{}, err
	}
	if strings.HasPrefix(r.Words[0], "@") {
		return control.Text{}, fmt.Errorf("device %q does not know message %q (known: @cancel_deferred_remove)", name, r.Words[0])
	}
	m, err := d.mapped(v)
	if err != nil {
		return control.Text{}, err
	}
	answer, err := m.Message(ctx, r.Sector, r.Words)
	if answer != "" && !strings.HasSuffix(answer, "\n") {
		answer += "\n"
	}
	return control.Text{Text: answer}, err
}

// flush makes durable what has been written to m.
func flush(ctx context.Context, m *dm.Mapped) error {
	return m.Do(ctx, block.Request{Op: block.OpFlush})
}
