package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"keyway/block"
	"keyway/dm"
)

// open reports whether a table or a request has d open.
func (h *history) open(d *device) bool {
	if d.handles > 0 {
		return true
	}
	for _, u := range h.mapped {
		for _, t := range h.tablesOf(u) {
			if slices.Contains(t.devices(), d) {
				return true
			}
		}
	}
	return false
}

func (h *history) remove(r *rand.Rand) error {
	d := h.change(r)
	if d == nil {
		return nil
	}
	o := dm.RemoveOptions{Deferred: h.kind != Concurrent && oneIn(r, 3)}
	h.logf("remove %s %+v", d.name, o)
	var want, err error
	open := h.open(d)
	if open && !o.Deferred {
		want = block.ErrBusy
	}
	m := h.real(d)
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	c := &call{what: "remove " + d.name, dev: d, control: true}
	c.finish = func() error {
		cancel()
		switch {
		case err == nil && o.Deferred && open:
			d.last = true
		case err == nil:
			h.forget(d)
		}
		if h.kind == Concurrent && (err == nil || errors.Is(err, block.ErrBusy)) {
			return nil // requests come and go
		}
		return h.outcome(c, err, want)
	}
	return h.start(c, func() { err = m.Remove(ctx, o) })
}

// reap follows deferred removals: a device goes with the last that stood on it.
func (h *history) reap() error {
	for again := true; again; {
		again = false
		for _, d := range h.mapped {
			if !d.last || h.open(d) {
				continue
			}
			dev, err := h.real(d).Open("the history")
			if err == nil {
				return errors.Join(fmt.Errorf("%s: nobody has it open, and it is still there (dm-fscrypt.md, invariant 33)", d.name), dev.Close())
			}
			h.logf("%s is gone", d.name)
			h.forget(d)
			again = true
			break
		}
	}
	return nil
}

// forget ends the life of d.
func (h *history) forget(d *device) {
	d.become(nil, h.nowWindow())
	d.gone, d.loaded, d.paused = true, nil, false
	h.put(d.name, nil)
	h.mapped = slices.DeleteFunc(h.mapped, func(u *device) bool { return u == d })
	h.starts = slices.DeleteFunc(h.starts, func(s *started) bool { return s.dev == d })
}

// rename gives a device another name; tables go on with what they opened.
func (h *history) rename(r *rand.Rand) error {
	d := h.change(r)
	if d == nil || d.handles > 0 || h.busy() {
		return nil
	}
	h.born++
	name := fmt.Sprintf("%s-%d", strings.SplitN(d.born, "-", 2)[0], h.born)
	h.logf("rename %s to %s", d.name, name)
	m := h.real(d)
	m.Rename(name)
	h.put(d.name, nil)
	h.put(name, m)
	d.name = name
	if got := m.Name(); got != name {
		return fmt.Errorf("is called %q", got)
	}
	return nil
}

// message makes bad blocks, or sends regions another way.
func (h *history) message(r *rand.Rand) error {
	d := h.change(r)
	if d == nil || d.live() == nil {
		return nil
	}
	w := pick(r, d.live().rows)
	var words []string
	switch {
	case w.kind == "dust" && !w.dusty:
		words, w.dusty = []string{"enable"}, true
	case w.kind == "dust" && oneIn(r, 4):
		words, w.dusty = []string{"disable"}, false
	case w.kind == "dust":
		b := (w.offs[0] + r.Int64N(w.end-w.start)) / w.unit
		if _, is := w.bad[b]; is {
			return nil
		}
		words = []string{"addbadblock", fmt.Sprint(b)}
		w.bad[b] = true
	case w.kind == "switch":
		i, path := r.IntN(len(w.regions)), r.IntN(len(w.devs))
		words = []string{"set_region_mappings", fmt.Sprintf("%x:%x", i, path)}
		w.regions[i] = path
	default:
		return nil
	}
	h.logf("message %s %d %v", d.name, w.start/sector, words)
	_, err := h.real(d).Message(background, w.start/sector, words)
	return err
}
