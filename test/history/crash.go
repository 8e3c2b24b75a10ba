package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"keyway/dm"
)

// crash is a loss of power in the middle of everything: devices, tables, engines
// and keys are gone, and of the leaves is left what they promised. Then the stack
// is built again.
func (h *history) crash(r *rand.Rand) error {
	h.logf("crash")
	left := map[*leaf][]byte{}
	for _, d := range h.leaves {
		left[d.leaf] = d.leaf.disk.cut(r.Uint64())
	}
	wrong := h.demolish()
	for _, d := range h.leaves {
		if err := d.leaf.medium.crash(left[d.leaf]); err != nil {
			return errors.Join(fmt.Errorf("leaf %s: %w", d.name, err), wrong)
		}
	}
	if wrong != nil {
		return wrong
	}
	return h.rebuild(left)
}

// demolish takes the product's side away, and with it everything in locked memory.
// It is no part of the history: the leaves do not see it.
func (h *history) demolish() error {
	for _, d := range h.leaves {
		d.leaf.disk.mu.Lock()
		d.leaf.disk.dead = true
		d.leaf.disk.mu.Unlock()
	}
	for _, e := range h.engines() {
		e.setFaults(false, false)
	}
	h.letGo()
	h.cancel()
	defer func() { h.calls, h.owed, h.starts = nil, nil, nil }()
	for range 10 {
		// Devices are drained as tables beneath them go on: all at once.
		done := make(chan struct{}, 100)
		n := 0
		h.mu.Lock()
		all := make([]*dm.Mapped, 0, len(h.devices))
		for _, m := range h.devices {
			all = append(all, m)
		}
		h.mu.Unlock()
		for _, m := range all {
			n++
			go func() {
				ctx, cancel := context.WithTimeout(background, patience)
				defer cancel()
				_ = m.Clear(ctx)
				_ = m.Resume(ctx)
				_ = m.Remove(ctx, dm.RemoveOptions{})
				done <- struct{}{}
			}()
		}
		for range n {
			<-done
		}
		gone := true
		for name, m := range h.devices {
			dev, err := m.Open("the history")
			if errors.Is(err, dm.ErrRemoved) {
				h.put(name, nil)
				continue
			}
			gone = false
			_ = dev.Close() // a handle on the device: cannot fail
		}
		if gone && !slices.ContainsFunc(h.calls, func(c *call) bool { return !c.done.Load() }) {
			break
		}
		time.Sleep(patience)
	}
	for _, c := range h.calls {
		if !c.done.Load() {
			return fmt.Errorf("%s does not end, though everything was let go", c.what)
		}
	}
	for _, k := range append(slices.Clone(h.keys), h.left...) {
		if _, err := k.real.Revoke(background); err != nil {
			return fmt.Errorf("after the end: %w", err)
		}
	}
	h.hardware.Close()
	return nil
}

// rebuild makes the stack again that was there, on what is left.
func (h *history) rebuild(left map[*leaf][]byte) error {
	old := h.world
	var err error
	if h.world, err = newWorld(h.slots); err != nil {
		return err
	}
	h.materials, h.now = old.materials, h.step
	h.ctx, h.cancel = context.WithCancel(background)
	for _, d := range h.leaves {
		if err := h.raise(d.leaf, left[d.leaf]); err != nil {
			return err
		}
	}
	for _, k := range h.keys {
		if k.closed != 0 {
			k.sealed, k.dead = max(k.sealed, 1), max(k.dead, 1)
			continue
		}
		again, err := h.newUse(k.name, k.of, k.cfg, false)
		if err != nil {
			return err
		}
		k.real, k.told, k.sent = again.real, again.told, again.sent
	}
	for _, d := range h.all() {
		d.changes, d.handles = 0, 0
	}
	was := h.mapped
	h.mapped = nil
	for _, d := range was { // each stands on older ones, or on tables newer than itself
		d.paused, d.last, d.loaded, d.coming = false, false, nil, nil
	}
	for progress := true; progress; {
		progress = false
		for _, d := range was {
			if slices.Contains(h.mapped, d) || d.gone || !h.standing(d) {
				continue
			}
			progress = true
			if err := h.again(d); err != nil {
				return err
			}
		}
	}
	for _, d := range was {
		if !slices.Contains(h.mapped, d) && !d.gone {
			h.forget(d) // it stood on something that is no more
		}
	}
	h.lastChange = h.step
	return nil
}

// standing reports whether all that d stands on is there.
func (h *history) standing(d *device) bool {
	for _, u := range d.live().devices() {
		if u.leaf == nil && !slices.Contains(h.mapped, u) {
			return false
		}
	}
	return true
}

// again makes d as it was.
func (h *history) again(d *device) error {
	if d.live() == nil {
		d.gone = true
		return nil
	}
	t := d.live().again()
	for _, r := range t.rows {
		r.untaken()
	}
	real, err := h.parse(t)
	if err != nil {
		return err
	}
	if real == nil {
		d.become(nil, h.nowWindow())
		d.gone = true
		return nil
	}
	m := dm.New(d.name, h.options())
	h.put(d.name, m)
	h.mapped = append(h.mapped, d)
	d.become(t, h.nowWindow())
	return m.Reload(background, real, dm.SuspendOptions{})
}
