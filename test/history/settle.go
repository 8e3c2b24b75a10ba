package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyway/dm"
)

// settle lets everything come to its end, and looks at all that must be true then.
func (h *history) settle() error {
	for i := 0; ; i++ {
		if err := h.wait(); err != nil {
			return err
		}
		if len(h.calls) == 0 {
			break
		}
		if i > 30 {
			var all []string
			for _, c := range h.calls {
				all = append(all, c.what)
			}
			return fmt.Errorf("nothing holds these up, and they do not end: %s", strings.Join(all, "; "))
		}
		h.letGo()
		for _, d := range slices.Clone(h.mapped) {
			if (d.paused || h.real(d).State().Suspended) && d.changes == 0 {
				if err := h.goOn(d); err != nil {
					return err
				}
			}
		}
		if i > 20 { // what has a deadline
			if err := h.sleep(); err != nil {
				return err
			}
		}
		h.tick()
	}
	return h.look()
}

// goOn ends the suspension of d, which needs a table for it.
func (h *history) goOn(d *device) error {
	switch {
	case d.loaded != nil && h.swap(d, d.loaded, dm.SuspendOptions{}) != nil:
		return h.clearOf(d)
	case d.live() != nil || d.loaded != nil:
		return h.resumeOf(d, h.ctx)
	}
	return h.reloadTo(d, &table{rows: []*row{{kind: "error", end: 16 * sector}}, block: sector}, dm.SuspendOptions{})
}

func (h *history) letGo() {
	for _, d := range h.leaves {
		d.leaf.disk.setHold(false)
	}
	for _, e := range h.engines() {
		e.setHold(false)
	}
}

// look compares product and model when nothing is under way.
func (h *history) look() error {
	h.tick()
	if err := h.reconcile(); err != nil {
		return err
	}
	for _, c := range h.owed {
		if err := h.arrived(c); err != nil {
			return err
		}
	}
	h.owed = nil
	for _, d := range h.leaves {
		l := d.leaf
		if len(l.disk.wrong) > 0 {
			return errors.New(l.disk.wrong[0])
		}
		if err := l.medium.settle(h.step, l.disk.content()); err != nil {
			return fmt.Errorf("leaf %s: %w", l.name, err)
		}
	}
	for _, e := range h.engines() {
		if err := h.lookAt(e); err != nil {
			return err
		}
	}
	h.mu.Lock()
	warnings := h.warnings
	h.warnings = nil
	h.mu.Unlock()
	for _, err := range warnings {
		// An engine may have been held for longer than the closing of a table takes.
		if h.kind != Concurrent || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("warning: %w", err)
		}
	}
	if err := h.strays(); err != nil {
		return err
	}
	return h.profiles()
}

// reconcile compares the state of devices with the model's, after changes that ran
// side by side takes it over.
func (h *history) reconcile() error {
	for _, d := range h.mapped {
		s := h.real(d).State()
		switch {
		case s.Suspended != d.paused:
			return fmt.Errorf("%s: suspended %v, and must be %v", d.name, s.Suspended, d.paused)
		case s.Inactive != (d.loaded != nil) || s.Live != (d.live() != nil):
			return fmt.Errorf("%s: tables %v live, %v inactive; must be %v, %v", d.name, s.Live, s.Inactive, d.live() != nil, d.loaded != nil)
		case s.Size != d.size():
			return fmt.Errorf("%s: %d bytes, must be %d", d.name, s.Size, d.size())
		case s.Waiting != 0 || s.Inside != 0:
			return fmt.Errorf("%s: %d requests inside, %d waiting, and there are none", d.name, s.Inside, s.Waiting)
		}
		if h.variant == asItIs && d.live() != nil {
			want := strings.TrimSpace(d.live().text())
			got := strings.TrimSpace(h.real(d).TableText(false, dm.StatusTable))
			if !sameTable(got, want) {
				return fmt.Errorf("%s: table is\n%s\nand must be\n%s", d.name, got, want)
			}
		}
	}
	return nil
}

// sameTable compares tables but for options, whose order the target chooses.
func sameTable(got, want string) bool {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	return slices.EqualFunc(g, w, func(g, w string) bool {
		a, b := strings.Fields(g), strings.Fields(w)
		n := min(len(a), len(b), 5)
		return n > 2 && slices.Equal(a[:n], b[:n])
	})
}

// arrived checks that a write beside which tables changed is where one of them had
// it, as far as nothing else was written there.
func (h *history) arrived(c *ioCall) error {
	content := map[*leaf][]byte{}
	for _, d := range h.leaves {
		content[d.leaf] = d.leaf.disk.content()
	}
	w := window{c.from, h.step}
	ok := fits(c.d, c.q.off, c.seen, c.q.marked, true, w, func(l *leaf, off int64, data []byte) bool {
		for at := int64(0); at < int64(len(data)); at += sector {
			if bytes.Equal(content[l][off+at:][:sector], data[at:][:sector]) {
				continue
			}
			others := slices.ContainsFunc(l.medium.sectors[(off+at)/sector], func(v version) bool {
				return (v.by != c.id || !bytes.Equal(v.data, data[at:][:sector])) && v.during.to >= c.from
			})
			if !others {
				return false
			}
		}
		return true
	})
	if !ok {
		return fmt.Errorf("request %d succeeded, and is on no leaf", c.id)
	}
	return nil
}

// lookAt checks an engine that nobody uses (blkcrypto.md, invariants 13, 15, 21).
func (h *history) lookAt(e *engine) error {
	if err := e.quiet(); err != nil {
		return err
	}
	if st := e.m.Stats(); st.Busy != 0 {
		return fmt.Errorf("%s: %d slots are busy, and there are no requests", e.Name(), st.Busy)
	}
	seen := map[uint64]int{}
	for _, r := range e.m.Residents() {
		if r.Requests != 0 {
			return fmt.Errorf("%s: slot %d has %d requests, and there are none", e.Name(), r.Slot, r.Requests)
		}
		if r.Quarantined == "" {
			if seen[r.ID]++; seen[r.ID] > 1 {
				return fmt.Errorf("%s: key %s is in two slots", e.Name(), r.Key)
			}
		}
	}
	h.mu.Lock()
	left := slices.Clone(h.left)
	h.mu.Unlock()
	for _, k := range left {
		if k.dead == 0 {
			continue
		}
		if err := h.goneFrom(e, k); err != nil {
			return fmt.Errorf("%w, which was evicted in step %d", err, k.dead)
		}
	}
	return nil
}

// A stray is a key in an engine to which it has no way.
type stray struct {
	e  *engine
	id uint64
}

// strays checks that no engine has a key that has no way to it any more: a table
// that is given up, whether it was live or not, evicts from what it drops
// (dm-fscrypt.md, invariants 59 and 61). Where a StartKey was the last reason for a
// key to stay, it stays until it is evicted.
func (h *history) strays() error {
	if h.kind == Concurrent {
		return nil
	}
	defer func() { h.stopped = false }()
	for _, d := range h.leaves {
		if d.leaf.engine == nil {
			continue
		}
		for _, r := range d.leaf.engine.m.Residents() {
			stray := stray{d.leaf.engine, r.ID}
			switch {
			case r.Quarantined != "" || h.hasWay(r.ID, d.leaf) || h.excused[stray]:
			case h.stopped:
				h.excused[stray] = true
			default:
				return fmt.Errorf("%s has key %s in slot %d, which has no way there any more (dm-fscrypt.md, invariant 61)", d.leaf.engine.Name(), r.Key, r.Slot)
			}
		}
	}
	return nil
}

// hasWay reports whether requests with the key get to l: from where they have come
// so far, or were said to come, or from a table that has it. The product keeps
// account of tables, and not of their rows.
func (h *history) hasWay(id uint64, l *leaf) bool {
	reaches := func(d *device) bool { return !d.gone && d.leaves(map[*leaf]bool{})[l] }
	for _, k := range h.keys {
		for d := range k.sent {
			if k.real.ID() == id && reaches(d) {
				return true
			}
		}
	}
	for _, s := range h.starts {
		if s.key.real.ID() == id && reaches(s.dev) {
			return true
		}
	}
	for _, d := range h.mapped {
		for _, t := range h.tablesOf(d) {
			has := slices.ContainsFunc(t.rows, func(r *row) bool { return r.encrypts() && r.key.real.ID() == id })
			if has && slices.ContainsFunc(t.devices(), reaches) {
				return true
			}
		}
	}
	return false
}

// profiles compares what devices advertise with the intersection of what is beneath
// them (dm-fscrypt.md, invariants 36 and 42).
func (h *history) profiles() error {
	for _, d := range h.all() {
		p := h.real(d).Info().Crypto
		for _, c := range configs {
			if got, want := p.Supports(c), d.serves(c) && h.variant != noEngines; got != want {
				return fmt.Errorf("%s: supports %v: %v, must be %v", d.name, c, got, want)
			}
		}
	}
	return nil
}
