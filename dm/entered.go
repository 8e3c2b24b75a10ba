package dm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/internal/point"
	"keyway/keyslot"
)

// A keySet is the keys whose contexts began at one place: at a device, by a
// request from above, or at a target of a table. When a table is given up they
// are the keys that may lie in the engines beneath it. Keys that have been evicted
// are forgotten as the set grows.
type keySet struct {
	keys sync.Map // *blkcrypto.Key
	n    atomic.Int64
	next atomic.Int64 // look for evicted keys when there are so many
}

const forgetFrom = 64

// add is called for each request: a key that is there already costs a look.
//
// Hot: no allocation for a key that is there.
func (s *keySet) add(k *blkcrypto.Key) {
	if _, known := s.keys.Load(k); known {
		return
	}
	if _, known := s.keys.LoadOrStore(k, nil); known || s.n.Add(1) < max(s.next.Load(), forgetFrom) {
		return
	}
	for k := range s.keys.Range {
		if k.(*blkcrypto.Key).Dead() {
			if _, was := s.keys.LoadAndDelete(k); was {
				s.n.Add(-1)
			}
		}
	}
	s.next.Store(2 * s.n.Load())
}

func (s *keySet) has(k *blkcrypto.Key) bool {
	_, known := s.keys.Load(k)
	return known
}

func (s *keySet) addTo(all map[*blkcrypto.Key]bool) {
	for k := range s.keys.Range {
		all[k.(*blkcrypto.Key)] = true
	}
}

// A source is where requests that get to a device come from.
type source struct {
	entered *keySet
	started map[*use]bool // of a device
}

// has reports whether k may come from s, but for the targets of the table gone.
func (s source) has(k *blkcrypto.Key, gone *Table) bool {
	for u := range s.started {
		if u.key == k && !gone.made(u) {
			return true
		}
	}
	return s.entered.has(k)
}

// sources returns where the requests that get to m now come from: m and the
// devices above it, and the targets that stand on one of those. Called with
// graph.mu held.
func (m *Mapped) sources() []source {
	var all []source
	seen := map[*Mapped]bool{}
	var up func(*Mapped)
	up = func(m *Mapped) {
		if seen[m] {
			return
		}
		seen[m] = true
		all = append(all, source{&m.entered, m.uses})
		for h := range m.handles {
			if t := h.table; t != nil && t.owner != nil && t.owner.live.Load() == t {
				all = append(all, source{entered: &t.entered})
				up(t.owner)
			}
		}
	}
	up(m)
	return all
}

// A resident is a key that may be in an engine to which its way is lost.
type resident struct {
	engine *keyslot.Manager
	key    *blkcrypto.Key
}

// A retired table is one that its device has given up. The keys that came through
// it, or that it kept there, are still in engines to which they have no other way.
type retired struct {
	table   *Table
	dropped []resident
}

// giveUp makes t, which m had until now and which no request uses, a retired one. Of
// m's live table it is called with graph.mu held in the section in which it was
// replaced: what stands above m and beneath t may be given up next.
func (m *Mapped) giveUp(t *Table) retired {
	if t == nil {
		return retired{}
	}
	return retired{t, m.dropped(t)}
}

// dropped returns the keys that came through t, which m has just given up, to
// engines that they cannot get to any more. Called with graph.mu held.
func (m *Mapped) dropped(t *Table) (all []resident) {
	keys := map[*blkcrypto.Key]bool{}
	t.entered.addTo(keys)
	for h := range t.handles {
		for u := range h.uses {
			if t.made(u) {
				keys[u.key] = true // of a target of t, which may have sent requests by an earlier table only
			}
		}
	}
	for _, s := range m.sources() {
		s.entered.addTo(keys)
		for u := range s.started {
			keys[u.key] = true // perhaps of a table that has just replaced the one through which it came
		}
	}
	if len(keys) == 0 {
		return nil
	}
	for _, leaf := range t.leaves() {
		others := leaf.sources()
		for k := range keys {
			if !slices.ContainsFunc(others, func(s source) bool { return s.has(k, t) }) {
				all = append(all, resident{leaf.Engine(), k})
			}
		}
	}
	return all
}

// made reports whether a target of t has started u.
func (t *Table) made(u *use) bool {
	return slices.ContainsFunc(t.rows, func(w row) bool { return w.builder == u.row })
}

// leaves returns the leaf devices with engines beneath t. Called with graph.mu
// held.
func (t *Table) leaves() (all []*Mapped) {
	seen := map[*Mapped]bool{}
	var down func(*Table)
	down = func(t *Table) {
		for h := range t.handles {
			d := h.Mapped
			if seen[d] {
				continue
			}
			seen[d] = true
			if d.Engine() != nil {
				all = append(all, d)
			} else if live := d.live.Load(); live != nil {
				down(live)
			}
		}
	}
	down(t)
	return all
}

// retire closes a retired table. Before it gives back the devices that it stood
// on, the keys that came to their engines through it are evicted there
// (dm-fscrypt.md, invariants 59 and 61). The keys stay usable.
func (m *Mapped) retire(t retired) {
	if t.table == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	point.At("dm: retiring")
	for _, r := range t.dropped {
		errs = append(errs, r.engine.Evict(ctx, r.key))
	}
	if err := errors.Join(errs...); err != nil && m.o.Warn != nil {
		m.o.Warn(m, fmt.Errorf("device %q: keys that came through a table that is no longer used: %w", m.Name(), err))
	}
	if err := t.table.Close(ctx); err != nil && m.o.Warn != nil {
		m.o.Warn(m, fmt.Errorf("device %q: closing a table that is no longer used: %w", m.Name(), err))
	}
}
