package daemon

import (
	"fmt"

	"keyway/control"
	"keyway/keystore"
)

func (d *Daemon) listKeys() []control.Key {
	all := []control.Key{}
	for _, k := range d.keys.List() {
		all = append(all, d.describeKey(k))
	}
	return all
}

// showKey is one element of listKeys.
func (d *Daemon) showKey(name string) (control.Key, error) {
	k, ok := d.keys.Get(name)
	if !ok {
		return control.Key{}, d.noKey(name, fmt.Errorf("key %q %w", name, keystore.ErrNotFound))
	}
	return d.describeKey(k), nil
}

// noKey adds to err, which says that there is no key of that name, the nearest that
// there is.
func (d *Daemon) noKey(name string, err error) error {
	var names []string
	for _, k := range d.keys.List() {
		names = append(names, k.Name)
	}
	err = notFound{err}
	if near := nearestName(name, names); near != "" {
		err = hint(err, fmt.Sprintf("did you mean %q?", near))
	}
	return err
}

func (d *Daemon) describeKey(k keystore.Status) control.Key {
	d.mu.Lock()
	config := d.configKey[k.Name]
	d.mu.Unlock()
	c := control.Key{
		Name: k.Name, Mode: k.Config.Mode.String(), Type: "raw", DataUnit: k.Config.DataUnitSize, DUNBytes: k.Config.DUNBytes,
		Source: k.Source, State: "present", Problem: k.Missing, Users: k.Users, Config: config,
		InUse: k.InUse, Native: k.Engine, Fallback: k.Software, Waits: k.Waits, Programs: k.Programs, Evictions: k.Evictions,
	}
	switch {
	case k.Pending:
		c.State = "evicting"
	case k.Missing != "":
		c.State = "missing"
	}
	if t := typeName(k.Config.KeyType); t != "" {
		c.Type = t
	}
	return c
}
