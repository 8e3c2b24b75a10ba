package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
)

// errAny stands for an error of which only the text says what it is.
var errAny = errors.New("any error")

// outcome checks how a change ended: want is nil for success. A change that others
// ran beside may end in any way.
func (h *history) outcome(c *call, err, want error) error {
	switch {
	case err != nil && errors.Is(err, errFault) && h.lastFault >= c.from:
		return nil
	case (errors.Is(err, dm.ErrStrands) || err == nil && want == dm.ErrStrands) && h.lastUse >= c.from:
		return nil // a key was started, stopped or evicted while the change was under way
	case h.kind == Concurrent && (!h.exact(window{c.from, h.step}, c) || slices.ContainsFunc(ended, func(e error) bool { return errors.Is(err, e) })):
		return nil
	case want == nil && err != nil:
		return fmt.Errorf("failed, and must succeed: %w", err)
	case want != nil && err == nil:
		return fmt.Errorf("succeeded, and must fail with %w", want)
	case want != nil && want != errAny && !errors.Is(err, want):
		return fmt.Errorf("failed with %w, and must with %w", err, want)
	}
	return nil
}

// build makes the product's table of t.
func (h *history) build(t *table) (*dm.Table, error) {
	return dm.Parse(background, t.text(), h.world, dm.ParseOptions{})
}

// parse builds t and compares whether that went as it must.
func (h *history) parse(t *table) (*dm.Table, error) {
	real, err := h.build(t)
	var want error
	switch {
	case !t.stands(): // whatever row is the first that cannot be
		want = errAny
	case !t.servable():
		want = block.ErrNoCrypto
	}
	if err != nil {
		if h.busy() || errors.Is(err, want) || want == errAny {
			h.logf("refused: %v", err)
			return nil, nil
		}
		return nil, fmt.Errorf("table refused: %w\n%s", err, t.text())
	}
	if want != nil && !h.busy() {
		return nil, errors.Join(fmt.Errorf("table taken, and must be refused with %w\n%s", want, t.text()), real.Close(background))
	}
	if h.busy() { // a change that has been made, and is not known here yet
		t.block = int64(real.Info().LogicalBlock)
	}
	return real, h.takenBy(t)
}

// create makes a device with a live table.
func (h *history) create(r *rand.Rand) error {
	if len(h.mapped) >= 8 {
		return h.remove(r)
	}
	t := h.newTable(r, nil)
	real, err := h.parse(t)
	if real == nil || err != nil {
		return err
	}
	h.born++
	d := &device{name: fmt.Sprintf("d%d", h.born)}
	d.born = d.name
	h.logf("create %s:\n%s", d.name, t.text())
	m := dm.New(d.name, h.options())
	h.put(d.name, m)
	h.mapped = append(h.mapped, d)
	c := &call{what: "create " + d.name, dev: d, control: true}
	c.finish = func() error {
		d.coming = nil
		if err == nil {
			d.become(t, window{c.from, h.step})
		}
		return h.outcome(c, err, nil)
	}
	d.coming = &life{t, h.nowWindow()}
	return h.start(c, func() { err = m.Reload(h.ctx, real, dm.SuspendOptions{}) })
}

// change picks a device for a change of it, nil if there is none that is left alone.
func (h *history) change(r *rand.Rand) *device {
	d := h.some(r, false)
	if s := pick(r, h.starts); s != nil && oneIn(r, 4) { // what a key in use goes through
		for _, u := range h.mapped {
			if s.dev.reaches(u) && (d == nil || oneIn(r, 2)) {
				d = u
			}
		}
	}
	if d == nil || d.changes > 0 {
		return nil
	}
	return d
}

// blocks reports whether suspending d waits for the end of another suspension.
func (h *history) blocks(d *device, noflush bool) bool {
	return !d.paused && !noflush && d.live() != nil && h.judgeIn(d, d.live(), question{op: block.OpFlush, w: h.nowWindow()}).blocks
}

// load puts a table into the inactive slot.
func (h *history) load(r *rand.Rand) error {
	d := h.change(r)
	if d == nil {
		return nil
	}
	t := h.newTable(r, d)
	real, err := h.parse(t)
	if real == nil || err != nil {
		return err
	}
	h.logf("load %s:\n%s", d.name, t.text())
	var want error
	if h.cycle(d, t) {
		want = errAny
	}
	c := &call{what: "load " + d.name, dev: d, control: true}
	c.finish = func() error {
		if err == nil {
			d.loaded = t
		}
		return h.outcome(c, err, want)
	}
	return h.start(c, func() { err = h.real(d).Load(h.ctx, real) })
}

func (h *history) cycle(d *device, t *table) bool {
	return slices.ContainsFunc(t.devices(), func(u *device) bool { return u.reaches(d) })
}

func (h *history) clear(r *rand.Rand) error {
	if d := h.change(r); d != nil {
		return h.clearOf(d)
	}
	return nil
}

func (h *history) clearOf(d *device) error {
	h.logf("clear %s", d.name)
	var err error
	c := &call{what: "clear " + d.name, dev: d, control: true}
	c.finish = func() error {
		if err == nil {
			d.loaded = nil
		}
		return h.outcome(c, err, nil)
	}
	return h.start(c, func() { err = h.real(d).Clear(h.ctx) })
}

func (h *history) suspend(r *rand.Rand) error {
	d := h.change(r)
	if d == nil {
		return nil
	}
	o := dm.SuspendOptions{NoFlush: oneIn(r, 3)}
	h.logf("suspend %s %+v", d.name, o)
	var want error
	if h.blocks(d, o.NoFlush) {
		want = context.DeadlineExceeded
	}
	was := d.paused
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	var err error
	c := &call{what: "suspend " + d.name, dev: d, control: true}
	c.finish = func() error {
		cancel()
		if err == nil {
			d.paused = true
			if !o.NoFlush && !was && h.exact(window{c.from, h.step}, c) {
				h.durable(d, c.from)
			}
		}
		return h.outcome(c, err, want)
	}
	return h.start(c, func() { err = h.real(d).Suspend(ctx, o) })
}

// swap says what making t live on d must end with.
func (h *history) swap(d *device, t *table, o dm.SuspendOptions) error {
	switch {
	case h.cycle(d, t):
		return errAny
	case !t.stands():
		return errAny
	case h.blocks(d, o.NoFlush):
		return context.DeadlineExceeded
	case len(h.stranded(d, t)) > 0 && !o.Revoke:
		return dm.ErrStrands
	}
	return nil
}

// stranded are the wrapped keys in use that no engine would take if t were live.
func (h *history) stranded(d *device, t *table) (all []*keyUse) {
	d.lives = append(d.lives, life{t, window{never, never}})
	defer func() { d.lives = d.lives[:len(d.lives)-1] }()
	look := func(u *device, k *keyUse) {
		if k.real != nil && k.cfg.KeyType == blkcrypto.HWWrapped && k.closed == 0 && !u.serves(k.cfg) {
			all = append(all, k)
		}
	}
	for _, s := range h.starts {
		look(s.dev, s.key)
	}
	for _, u := range h.mapped {
		for _, t := range append(h.tablesOf(u), lifeBefore(u, d)...) {
			for _, r := range t.rows {
				if r.encrypts() {
					look(r.devs[0], r.key)
				}
			}
		}
	}
	return all
}

// revoked are the wrapped keys that are evicted, and of which the model does not
// know why: of the upper layer, of tables, and of those that are about to be live.
func (h *history) revoked(next *table) (all []*keyUse) {
	tables := []*table{next}
	for _, u := range h.mapped {
		if tables = append(tables, h.tablesOf(u)...); u.coming != nil {
			tables = append(tables, u.coming.table)
		}
	}
	keys := slices.Clone(h.keys)
	for _, t := range tables {
		for _, r := range t.rows {
			if r.encrypts() {
				keys = append(keys, r.key)
			}
		}
	}
	for _, k := range keys {
		if k.cfg.KeyType == blkcrypto.HWWrapped && k.real != nil && k.real.Evicted() && k.closed == 0 && k.killed == 0 && !slices.Contains(all, k) {
			all = append(all, k)
		}
	}
	return all
}

// lifeBefore is the table that u has but for the trial of another on d.
func lifeBefore(u, d *device) (all []*table) {
	if n := len(u.lives); u == d && n > 1 && u.lives[n-2].table != nil {
		all = append(all, u.lives[n-2].table)
	}
	return all
}

func (h *history) resume(r *rand.Rand) error {
	d := h.change(r)
	for _, p := range h.mapped { // those that something waits for first
		if p.paused && p.changes == 0 && oneIn(r, 2) {
			d = p
		}
	}
	if d == nil {
		return nil
	}
	return h.resumeOf(d, h.ctx)
}

func (h *history) resumeOf(d *device, parent context.Context) error {
	h.logf("resume %s", d.name)
	t := d.loaded
	var want error
	switch {
	case t != nil:
		want = h.swap(d, t, dm.SuspendOptions{})
	case d.live() == nil:
		want = dm.ErrNoTable
	}
	ctx, cancel := context.WithTimeout(parent, patience)
	var err error
	c := &call{what: "resume " + d.name, dev: d, control: true}
	if t != nil {
		d.coming = &life{t, h.nowWindow()}
	}
	c.finish = func() error {
		cancel()
		d.coming = nil
		if err == nil {
			if t != nil {
				h.flushed(d, c, dm.SuspendOptions{})
				d.become(t, window{c.from, h.step})
				d.loaded = nil
			}
			d.paused = false
		}
		return h.outcome(c, err, want)
	}
	return h.start(c, func() { err = h.real(d).Resume(ctx) })
}

// flushed records that a device was suspended on the way to something.
func (h *history) flushed(d *device, c *call, o dm.SuspendOptions) {
	if !o.NoFlush && !d.paused && d.live() != nil && h.exact(window{c.from, h.step}, c) {
		h.durable(d, c.from)
	}
}

// reload replaces the live table by another: of other size, on other devices, in
// another order, of errors.
func (h *history) reload(r *rand.Rand) error {
	d := h.change(r)
	if d == nil {
		return nil
	}
	t := h.newTable(r, d)
	switch {
	case d.live() == nil:
	case oneIn(r, 8):
		t = &table{rows: []*row{{kind: "error", end: d.size()}}, block: sector}
	case oneIn(r, 6):
		t = d.live().again()
		for _, r := range t.rows {
			r.untaken()
		}
	}
	return h.reloadTo(d, t, dm.SuspendOptions{NoFlush: oneIn(r, 4), Revoke: oneIn(r, 4)})
}

func (h *history) reloadTo(d *device, t *table, o dm.SuspendOptions) error {
	real, err := h.parse(t)
	if real == nil || err != nil {
		return err
	}
	h.logf("reload %s %+v:\n%s", d.name, o, t.text())
	want := h.swap(d, t, o)
	var revoked []*keyUse
	if o.Revoke && !h.cycle(d, t) {
		revoked = h.stranded(d, t)
		for _, k := range revoked {
			k.killed = h.step
		}
	}
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	c := &call{what: "reload " + d.name, dev: d, control: true, revokes: o.Revoke}
	d.coming = &life{t, h.nowWindow()}
	c.finish = func() error {
		cancel()
		d.coming = nil
		exact := h.kind != Concurrent || h.exact(window{c.from, h.step}, c) && h.lastUse < c.from
		if o.Revoke && !exact {
			for _, k := range h.revoked(t) { // came into use while the reload was under way
				k.killed = c.from
				revoked = append(revoked, k)
			}
		}
		for _, k := range revoked {
			if k.real.Evicted() {
				k.seal(c.from, h.step)
			}
		}
		if err == nil {
			for _, k := range revoked {
				if exact { // another change may have taken it out of use first
					k.dead = h.step
				}
			}
			h.flushed(d, c, o)
			d.become(t, window{c.from, h.step})
			d.loaded, d.paused = nil, false
		}
		return h.outcome(c, err, want)
	}
	return h.start(c, func() { err = h.real(d).Reload(ctx, real, o) })
}
