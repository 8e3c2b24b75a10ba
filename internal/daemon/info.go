package daemon

import (
	"fmt"
	"slices"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/control"
	"keyway/dm"
	"keyway/keyslot"
)

func (d *Daemon) listDevices() []control.Device {
	d.mu.Lock()
	var all []*device
	for _, name := range sortedKeys(d.devices) {
		if v := d.devices[name]; !v.making && !v.gone {
			all = append(all, v)
		}
	}
	d.mu.Unlock()
	list := []control.Device{}
	for _, v := range all {
		list = append(list, d.describe(v))
	}
	return list
}

// describe tells the state of a device.
func (d *Daemon) describe(v *device) control.Device {
	d.mu.Lock()
	m, s := v.m, v.spec
	x := control.Device{Name: s.Name, UUID: s.UUID, Problem: v.problem, Config: v.config, Backend: s.Backend}
	d.mu.Unlock()
	x.State = "no table"
	if s.Backend != "" {
		e, _ := parseEngine(s.Engine)
		x.Engine = e.name
	}
	if m == nil {
		return x
	}
	st := m.State()
	x.ReadOnly, x.Size, x.Live, x.Inactive, x.Rows = st.ReadOnly, st.Size, st.Live, st.Inactive, st.Rows
	x.Immutable = st.Immutable
	x.Open, x.Holders, x.Event = st.Open, st.Holders, st.Event
	x.DeferredRemove, x.InFlight, x.Waiting = st.DeferredRemove, st.Inside, st.Waiting
	switch {
	case st.Suspended:
		x.State = "suspended"
	case st.Live:
		x.State = "active"
	}
	i := m.Info()
	x.LogicalBlock, x.PhysicalBlock = i.LogicalBlock, i.PhysicalBlock
	c := m.Counters()
	x.Requests, x.Bytes = map[string]uint64{}, map[string]uint64{}
	for op := range c.Ops {
		name := block.Op(op).String()
		x.Requests[name], x.Bytes[name] = c.Ops[op], c.Bytes[op]
	}
	by := served(m)
	x.Served, by.Device = &by, ""
	x.Under = d.under(m, s)
	return x
}

// under names what a device stands on, each once.
func (d *Daemon) under(m *dm.Mapped, s deviceSpec) []control.Dep {
	if s.Backend != "" {
		return []control.Dep{{Name: s.Backend}}
	}
	var deps []control.Dep
	for _, span := range m.Under() {
		h, ok := span.Dev.(*dm.Handle)
		if !ok {
			continue
		}
		dep := control.Dep{Name: h.Name()}
		d.mu.Lock()
		v := d.devices[dep.Name]
		dep.Device = v != nil && v.m == h.Mapped
		d.mu.Unlock()
		if !slices.Contains(deps, dep) {
			deps = append(deps, dep)
		}
	}
	slices.SortFunc(deps, func(a, b control.Dep) int { return slices.Compare([]string{a.Name}, []string{b.Name}) })
	return deps
}

// text is the table or the status of a device.
func (d *Daemon) text(v *device, inactive bool, k dm.StatusKind) (control.Text, error) {
	d.mu.Lock()
	m, s := v.m, v.spec
	d.mu.Unlock()
	if m == nil {
		return control.Text{}, nil
	}
	t := m.TableText(inactive, k)
	if t == "" && k == dm.StatusTable && !inactive && s.Live != nil {
		t = s.Live.Text // what is to become its table once it can
	}
	return control.Text{Text: t}, nil
}

// crypto tells who encrypts what for a device.
func (d *Daemon) crypto(v *device) (control.Crypto, error) {
	m, err := d.mapped(v)
	if err != nil {
		return control.Crypto{}, err
	}
	c := control.Crypto{
		Device: m.Name(), Native: configs(m.Info().Crypto), Software: configs(d.fallback.Profile()),
		Engines: []control.Keyslot{},
	}
	seen := map[*dm.Mapped]bool{}
	var walk func(m *dm.Mapped)
	walk = func(m *dm.Mapped) {
		if seen[m] {
			return
		}
		seen[m] = true
		c.Served = append(c.Served, served(m))
		if e := m.Engine(); e != nil {
			c.Engines = append(c.Engines, slots(e, m.Name()))
		}
		for _, s := range m.Under() {
			if h, ok := s.Dev.(*dm.Handle); ok {
				walk(h.Mapped)
			}
		}
	}
	walk(m)
	c.Engines = append(c.Engines, slots(d.fallback, ""))
	return c, nil
}

// served says who transformed what came to m with a context.
func served(m *dm.Mapped) control.Served {
	s := control.Served{Device: m.Name()}
	c := m.Counters()
	for op := range c.Native {
		s.Native += c.Native[op]
		s.Fallback += c.Software[op]
	}
	return s
}

func configs(p blkcrypto.Profile) []control.Config {
	list := []control.Config{}
	for _, c := range p.Configs() {
		list = append(list, config(c))
	}
	return list
}

func config(c blkcrypto.Config) control.Config {
	x := control.Config{Mode: c.Mode.String(), KeyType: c.KeyType.String(), DataUnit: c.DataUnitSize, DUNBytes: c.DUNBytes}
	if c.Numbering == blkcrypto.BySector {
		x.Numbering = "by sector"
	}
	return x
}

func slots(m *keyslot.Manager, device string) control.Keyslot {
	st := m.Stats()
	x := control.Keyslot{
		Engine: m.Name(), Device: device, Slots: st.Slots, Busy: st.Busy, Quarantined: st.Quarantined,
		Programs: st.Programs, Evictions: st.Evictions, Failures: st.Failures, Waits: st.Waits, Resets: st.Resets, Keys: []control.Slot{},
	}
	for _, r := range m.Residents() {
		x.Keys = append(x.Keys, control.Slot{Slot: r.Slot, Key: r.Key, ID: r.ID, Requests: r.Requests, Quarantined: r.Quarantined})
	}
	return x
}

// wait is dmsetup wait.
func parseEvent(s string) (n uint64, err error) {
	if _, err = fmt.Sscanf(s, "%d", &n); err != nil {
		err = fmt.Errorf("event %q is not a number", s)
	}
	return n, err
}
