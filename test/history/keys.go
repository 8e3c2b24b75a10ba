package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
)

// addKey gives the upper layer another key, seldom one of bytes that it had before.
func (h *history) addKey(r *rand.Rand) error {
	c := pick(r, configs)
	for c.KeyType != blkcrypto.HWWrapped && h.kind != Twins && oneIn(r, 4) {
		c = pick(r, configs)
	}
	var m *material
	switch {
	case c.KeyType == blkcrypto.HWWrapped && h.kind == Twins:
		c.KeyType = blkcrypto.Raw
		fallthrough
	case c.KeyType == blkcrypto.Raw:
		for _, k := range h.keys {
			if k.of.raw != nil && !k.of.wrapped && len(k.of.raw) == c.Mode.KeySize() && oneIn(r, 4) {
				m = k.of
			}
		}
		if m == nil {
			m = &material{raw: random(r, c.Mode.KeySize())}
		}
	default:
		m = &material{raw: random(r, 32), wrapped: true}
		long, err := h.hardware.Import(m.raw)
		if err != nil {
			return err
		}
		m.blob = slices.Clone(long.Bytes())
		long.Wipe()
	}
	h.born++
	k, err := h.newUse(fmt.Sprintf("u%d", h.born), m, c, false)
	if err != nil {
		return err
	}
	h.logf("key %v", k.real)
	if len(h.keys) >= 8 { // few keys, used often; the oldest is evicted and forgotten
		old := h.keys[0]
		h.keys = h.keys[1:]
		if err := h.evictKey(old, "evict", h.ctx); err != nil {
			return err
		}
	}
	h.keys = append(h.keys, k)
	return nil
}

// startKey declares a key to a device.
func (h *history) startKey(r *rand.Rand) error {
	d, k := h.some(r, true), pick(r, h.keys)
	for range 20 { // rather wrapped keys, which may be in the way of reloads
		if d != nil && k != nil && (k.closed != 0 || k.cfg.KeyType == blkcrypto.Raw || !d.serves(k.cfg) || d.leaf != nil) {
			d, k = h.some(r, true), pick(r, h.keys)
		}
	}
	if d == nil || k == nil {
		return nil
	}
	h.lastUse = h.step
	stop, err := h.real(d).StartKey(k.real, "the history")
	h.logf("start %v on %s: %v", k.real, d.name, err)
	var want error
	switch {
	case k.closed != 0:
		want = blkcrypto.ErrKeyEvicted
	case k.cfg.KeyType == blkcrypto.HWWrapped && !d.serves(k.cfg):
		want = block.ErrNoCrypto
	}
	if err == nil {
		h.starts = append(h.starts, &started{d, k, stop})
	}
	unsure := h.busy() || k.closed != 0 && k.sealed == 0 || slices.ContainsFunc(h.calls, func(c *call) bool { return c.idles == k })
	if !errors.Is(err, want) && !unsure {
		return fmt.Errorf("start of %v on %s: %w, want %v", k.real, d.name, err, want)
	}
	return nil
}

func (h *history) stopKey(r *rand.Rand) error {
	if len(h.starts) == 0 {
		return nil
	}
	h.lastUse = h.step
	i := r.IntN(len(h.starts))
	h.logf("stop %v on %s", h.starts[i].key.real, h.starts[i].dev.name)
	h.starts[i].stop()
	h.starts[i].stop()
	h.stopped = true
	h.starts = slices.Delete(h.starts, i, i+1)
	return nil
}

// evict evicts a key of the upper layer in one of the ways that there are.
func (h *history) evict(r *rand.Rand) error {
	k := pick(r, h.keys)
	if k == nil {
		return nil
	}
	how := []string{"evict", "idle", "revoke"}[r.IntN(3)]
	ctx, cancel := h.ctx, func() {}
	if oneIn(r, 3) {
		ctx, cancel = context.WithTimeout(h.ctx, patience/2)
		how += " with a deadline"
	}
	_ = cancel // the bubble's end ends it
	return h.evictKey(k, how, ctx)
}

// uses are the requests under way with k.
func (h *history) uses(k *keyUse) (n int) {
	for _, c := range h.calls {
		if c.io != nil && c.io.q.ctx == k {
			n++
		}
	}
	return n
}

func (h *history) evictKey(k *keyUse, how string, ctx context.Context) error {
	h.lastUse = h.step
	h.logf("%s %v", how, k.real)
	h.stats.Evictions++
	uses, was := h.uses(k), k.closed != 0
	idle := strings.HasPrefix(how, "idle")
	var err error
	c := &call{what: fmt.Sprintf("%s %v", how, k.real)}
	if idle {
		c.idles = k
	} else {
		c.closes = k
		if k.closed == 0 {
			k.closed, k.counted = h.step, h.lastWait
		}
		if strings.HasPrefix(how, "revoke") && k.killed == 0 {
			k.killed = h.step
		}
	}
	c.finish = func() error {
		if err == nil || !idle {
			k.seal(c.from, h.step)
		}
		switch {
		case err == nil:
			if k.dead == 0 {
				k.dead = h.step
			}
			h.left = append(h.left, k)
			return h.goneEverywhere(k)
		case errors.Is(err, blkcrypto.ErrKeyBusy) && idle:
			if uses == 0 && !was && h.kind != Concurrent {
				return fmt.Errorf("busy, and no request uses it")
			}
			return nil
		}
		if errors.Is(err, errFault) && h.lastFault >= c.from {
			k.seal(c.from, h.step)
			return nil
		}
		if h.kind == Concurrent && slices.ContainsFunc(ended, func(e error) bool { return errors.Is(err, e) }) {
			if idle && k.closed == 0 {
				k.closed = c.from // or not: it was idle, and waited for engines
			}
			return nil
		}
		return fmt.Errorf("failed: %w", err)
	}
	return h.start(c, func() {
		switch strings.Fields(how)[0] {
		case "idle":
			_, err = k.real.EvictIdle(ctx)
		case "revoke":
			_, err = k.real.Revoke(ctx)
		default:
			_, err = k.real.Evict(ctx)
		}
	})
}

// seal records that no new request is served with k.
func (k *keyUse) seal(from, now int) {
	if k.closed == 0 {
		k.closed = from
	}
	if k.sealed == 0 {
		k.sealed = now
	}
}

// goneEverywhere checks that nothing has k any more (dm-fscrypt.md, invariant 51).
func (h *history) goneEverywhere(k *keyUse) error {
	for _, e := range h.engines() {
		if err := h.goneFrom(e, k); err != nil {
			return fmt.Errorf("%w after its eviction (dm-fscrypt.md, invariant 51)", err)
		}
	}
	return nil
}

func (h *history) goneFrom(e *engine, k *keyUse) error {
	for _, r := range e.m.Residents() {
		if r.ID == k.real.ID() {
			return fmt.Errorf("%s has key %v in slot %d", e.Name(), k.real, r.Slot)
		}
	}
	if slot, is := e.holds(k.told); is && !h.toldElsewhere(k) {
		return fmt.Errorf("slot %d of %s holds the bytes of key %v", slot, e.Name(), k.real)
	}
	return nil
}

// toldElsewhere reports whether another key of the same bytes is alive.
func (h *history) toldElsewhere(k *keyUse) bool {
	alike := func(o *keyUse) bool { return o != k && o.dead == 0 && slices.Equal(o.told, k.told) }
	if slices.ContainsFunc(h.keys, alike) || slices.ContainsFunc(h.left, alike) {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.taken {
		if alike(o) {
			return true
		}
	}
	return false
}

// evictHere evicts a key from what is beneath one device; it can still be used.
func (h *history) evictHere(r *rand.Rand) error {
	d, k := h.some(r, true), pick(r, h.keys)
	if d == nil || k == nil {
		return nil
	}
	h.logf("evict %v from %s alone", k.real, d.name)
	h.stats.Evictions++
	var err error
	m := h.real(d).Keyslots()
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	c := &call{what: fmt.Sprintf("evict %v from %s alone", k.real, d.name)}
	c.finish = func() error {
		cancel()
		if err != nil {
			if errors.Is(err, errFault) && h.lastFault >= c.from || h.kind == Concurrent {
				return nil
			}
			return err
		}
		if h.kind == Concurrent || d.gone {
			return nil
		}
		found := map[*leaf]bool{}
		d.allLeaves(found)
		for l := range found {
			if l.engine != nil {
				if err := h.goneFromHere(l.engine, k); err != nil {
					return err
				}
			}
		}
		if d.leaf == nil && d.live() != nil {
			return h.goneFromHere(h.fallback, k)
		}
		return nil
	}
	return h.start(c, func() { err = m.Evict(ctx, k.real) })
}

func (h *history) goneFromHere(e *engine, k *keyUse) error {
	for _, r := range e.m.Residents() {
		if r.ID == k.real.ID() {
			return fmt.Errorf("%s still has it in slot %d", e.Name(), r.Slot)
		}
	}
	return nil
}

// reset makes an engine lose its keys, which the manager brings back.
func (h *history) reset(r *rand.Rand) error {
	e := pick(r, h.engines())
	if h.variant == noEngines {
		e = h.fallback
	}
	h.logf("reset of %s", e.Name())
	var err error
	was := e.m.Residents()
	c := &call{what: "reset of " + e.Name()}
	c.finish = func() error {
		switch {
		case err != nil && !(errors.Is(err, errFault) && h.lastFault >= c.from):
			return err
		case err != nil || h.kind == Concurrent:
			return nil
		}
		return e.back(was)
	}
	return h.start(c, func() { err = e.m.Reset(e.Lose) })
}

// faults makes an engine fail, or stop it.
func (h *history) faults(r *rand.Rand) error {
	e := pick(r, h.engines())
	program, evict := oneIn(r, 2), oneIn(r, 3)
	h.logf("%s fails to program: %v, to evict: %v", e.Name(), program, evict)
	h.noteFaults() // up to now
	e.setFaults(program, evict)
	h.noteFaults()
	return nil
}

// repair ends all faults, and waits until engines have been tried again.
func (h *history) repair() error {
	h.logf("all faults end")
	h.noteFaults() // up to now
	for _, e := range h.engines() {
		e.setFaults(false, false)
	}
	if h.kind == Concurrent && len(h.calls) > 0 {
		return nil
	}
	for _, e := range h.engines() {
		e.setHold(false)
	}
	time.Sleep(3 * time.Minute)
	if err := h.wait(); err != nil {
		return err
	}
	for _, e := range h.engines() {
		if st := e.m.Stats(); st.Quarantined > 0 {
			return fmt.Errorf("%s: %d slots are still in quarantine (dm-fscrypt.md, invariant 53)", e.Name(), st.Quarantined)
		}
	}
	for _, k := range h.half() {
		if _, err := k.real.Evict(background); err != nil {
			return fmt.Errorf("evict %v again: %w", k.real, err)
		}
		if k.dead == 0 {
			k.dead = h.step
		}
		h.left = append(h.left, k)
		if err := h.goneEverywhere(k); err != nil {
			return err
		}
	}
	return nil
}

// half are the keys whose eviction was not finished.
func (h *history) half() (all []*keyUse) {
	for _, k := range append(slices.Clone(h.keys), h.left...) {
		if k.closed != 0 && k.dead == 0 && !slices.Contains(all, k) {
			all = append(all, k)
		}
	}
	return all
}

// hold makes a leaf or an engine keep what comes, or lets it go.
func (h *history) hold(r *rand.Rand, on bool) error {
	d := pick(r, h.leaves)
	e := pick(r, h.engines())
	if oneIn(r, 2) {
		h.logf("%s holds requests: %v", d.name, on)
		d.leaf.disk.setHold(on)
		return nil
	}
	h.logf("%s holds programs and evictions: %v", e.Name(), on)
	e.setHold(on)
	return nil
}

// sleep lets deadlines pass.
func (h *history) sleep() error {
	h.logf("time passes")
	time.Sleep(2 * patience)
	return nil
}
