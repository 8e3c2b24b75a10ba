package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keyway/dm"
)

// A device whose table has lost its key to an eviction has a problem, until the key is
// there again and the table has been loaded anew.

// hasKey reports whether tables can have the key called name.
func (d *Daemon) hasKey(name string) bool {
	st, ok := d.keys.Get(name)
	return ok && st.Missing == "" && !st.Pending
}

func lostKey(key string) string {
	return fmt.Sprintf("key %q has been evicted: requests that need it fail", key)
}

// without notes the problem of devices whose live table refers to a key that has been
// evicted, and returns their names.
func (d *Daemon) without(key string) (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range sortedKeys(d.devices) {
		v := d.devices[name]
		if v.spec.Live == nil {
			continue
		}
		for word := range strings.FieldsSeq(v.spec.Live.Text) {
			if ref := strings.SplitN(word, ":", 4); len(ref) == 4 && ref[0] == "" && ref[3] == key {
				v.problem = lostKey(key)
				names = append(names, v.spec.Name)
				break
			}
		}
	}
	return names
}

// wakeLost is wake after nowLive: if the device has lost a key that is there again.
func (d *Daemon) wakeLost(ctx context.Context, name string) {
	d.mu.Lock()
	var m *dm.Mapped
	if v := d.devices[name]; v != nil {
		m = v.m
	}
	d.mu.Unlock()
	if m != nil && slices.ContainsFunc(m.LostKeys(), d.hasKey) {
		d.wake(ctx)
		return
	}
	d.offer(ctx)
}
