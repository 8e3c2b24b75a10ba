package keyslot

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/point"
	"keyway/internal/secret"
)

// maxPassed bounds how many requests whose key is in a slot may pass the
// waiter that needs one. Without passing, a single slot would be reprogrammed
// for each request of two keys in turn; without a bound, the waiter could
// starve (blkcrypto.md, invariant 17).
const maxPassed = 64

// A waiter is somebody in the queue.
type waiter struct {
	kind   kind
	key    *blkcrypto.Key // wantKey, and wantSlot unless any key will do
	slot   *slot          // wantSlot, wantForReset
	repair bool           // wantSlot: only while it is in quarantine
	ready  chan grant     // buffered: the manager never waits for a waiter
}

type kind uint8

const (
	wantKey      kind = iota // a slot that holds key, or one to program and the engine
	wantSlot                 // slot and the engine, to evict key
	wantEngine               // the engine, for a reset
	wantForReset             // slot, for the reset that has the engine
)

// A grant is what a waiter gets. Whoever gets the engine has it until done.
type grant struct {
	slot    *slot // nil for wantSlot: there is nothing to evict any more
	program bool  // wantKey: slot is taken and waits to be programmed
	err     error
}

// getSlow is Get under the lock: a hit where the fast path is closed, a key
// to program, or a wait.
func (m *Manager) getSlow(ctx context.Context, k *blkcrypto.Key, nowait bool) (Slot, error) {
	if m.engine == nil {
		return m.pass.get(k)
	}
	if m.direct.engine != nil {
		return m.getDirect(ctx, k, nowait)
	}
	if err := m.check(k); err != nil {
		return Slot{}, err
	}
	m.mu.Lock()
	s := m.hit(k, m.starved != nil)
	m.mu.Unlock()
	switch {
	case s != nil:
		return Slot{m, s}, nil
	case nowait:
		return Slot{}, block.ErrWouldBlock
	}
	point.At("keyslot: missed")
	// An eviction must ask here from now on, though nothing of k is here yet: else it
	// could end while a slot is kept for k and waits to be programmed.
	if err := k.Program(m, func([]byte) error { return nil }); err != nil {
		return Slot{}, err
	}
	point.At("keyslot: told")
	m.mu.Lock()
	g, err := m.await(ctx, &waiter{kind: wantKey, key: k})
	switch {
	case err != nil:
		return Slot{}, fmt.Errorf("waiting for a keyslot of %s: %w", m.engine.Name(), err)
	case g.err != nil:
		return Slot{}, g.err
	case !g.program:
		return Slot{m, g.slot}, nil
	}
	slot, err := m.program(k, g.slot)
	if err == errAgain {
		return m.getSlow(ctx, k, nowait)
	}
	return slot, err
}

// await puts w into the queue and returns what it gets, or the cause of ctx
// if that ends first. It is called with mu held and returns without.
func (m *Manager) await(ctx context.Context, w *waiter) (grant, error) {
	w.ready = make(chan grant, 1)
	m.queue = append(m.queue, w)
	m.queued.Store(true) // before pump looks at the slots: who releases one later sees it
	m.pump()
	if w.kind == wantKey && len(w.ready) == 0 {
		m.stats.Waits++
		w.key.CountWait()
	}
	m.mu.Unlock()
	point.At("keyslot: waiting")
	select {
	case g := <-w.ready:
		point.At("keyslot: granted")
		return g, nil
	case <-ctx.Done():
	}
	point.At("keyslot: gave up")
	m.mu.Lock()
	i := slices.Index(m.queue, w)
	if i < 0 {
		m.mu.Unlock()
		return <-w.ready, nil // it came at the same moment
	}
	m.queue = slices.Delete(m.queue, i, i+1)
	m.pump()
	m.mu.Unlock()
	return grant{}, context.Cause(ctx)
}

// pump serves the queue as far as engine and slots allow, in order, and then
// decides whether hits may do without the lock. It is called with mu held
// after every change that somebody may be waiting for.
func (m *Manager) pump() {
	var starved *waiter // the first one, of this pass over the queue
	left := m.queue[:0]
	for _, w := range m.queue {
		g, served := m.serve(w, starved != nil)
		if served {
			w.ready <- g
			continue
		}
		left = append(left, w)
		if starved == nil && w.kind == wantKey && !m.calling && !m.held(w.key) {
			starved = w
			m.starve(w)
		}
	}
	clear(m.queue[len(left):])
	m.queue = left
	if starved == nil {
		m.starve(nil)
	}
	m.queued.Store(len(left) > 0)
	if open := starved == nil && !m.resetting && !m.closed && len(m.leaving) == 0; open != m.open.Load() {
		m.open.Store(open)
	}
}

// starve makes w the waiter that hits pass. Each may be passed as often, so
// that many keys on few slots are still served in batches.
func (m *Manager) starve(w *waiter) {
	if w != m.starved {
		m.starved, m.passed = w, 0
	}
}

// held reports whether requests for k wait for the end of an eviction or a
// reset, and not for a slot.
func (m *Manager) held(k *blkcrypto.Key) bool { return m.resetting || m.leaving[k.ID()] > 0 }

// serve gives w what it wants if it may have it now. Called with mu held.
func (m *Manager) serve(w *waiter, starved bool) (grant, bool) {
	switch w.kind {
	case wantKey:
		return m.serveKey(w.key, starved)
	case wantSlot:
		if w.key != nil && !slices.Contains(w.slot.holds, w.key) || len(w.slot.holds) == 0 || w.repair && w.slot.broken == nil {
			return grant{}, true
		}
		if m.calling || !w.slot.refs.CompareAndSwap(0, taken) {
			return grant{}, false
		}
		m.calling = true
		m.unlink(w.slot)
	case wantEngine:
		if m.calling {
			return grant{}, false
		}
		m.calling, m.resetting = true, true
	case wantForReset:
		if !w.slot.refs.CompareAndSwap(0, taken) {
			return grant{}, false
		}
	}
	return grant{slot: w.slot}, true
}

func (m *Manager) serveKey(k *blkcrypto.Key, starved bool) (grant, bool) {
	switch {
	case m.closed:
		return grant{err: block.ErrClosed}, true
	case k.Dead():
		return grant{err: blkcrypto.ErrKeyEvicted}, true
	}
	if s := m.hit(k, starved); s != nil {
		return grant{slot: s}, true
	}
	if starved || m.calling || m.held(k) || m.find(k) != nil {
		return grant{}, false // starved: a slot that becomes idle just now is not k's
	}
	s := m.victim()
	if s == nil {
		return grant{}, false
	}
	m.calling = true
	m.unlink(s)
	if s.broken == nil {
		s.holds = append(s.holds, k) // before the engine knows: never fewer than the truth
	}
	return grant{slot: s, program: true}, true
}

// hit returns a new reference to the slot of k, nil if there is none or if
// too many have passed the starved waiter. Called with mu held.
func (m *Manager) hit(k *blkcrypto.Key, starved bool) *slot {
	if m.closed || m.held(k) || starved && m.passed >= maxPassed {
		return nil
	}
	s := m.find(k)
	if s == nil || !s.ref() {
		return nil
	}
	if starved {
		m.passed++
	}
	return s
}

// victim takes the idle slot that was released longest ago, an empty one
// before all others, or returns nil. It gives out a slot in quarantine only
// if all are, so that requests fail with the engine's error, or find it
// repaired, where they would wait for ever.
func (m *Manager) victim() *slot {
	for {
		var best, worst *slot
		sound, resident := false, false
		for i := range m.slots {
			s := &m.slots[i]
			switch {
			case s.broken == nil:
				sound, resident = true, resident || len(s.holds) > 0
				if s.refs.Load() == 0 && (best == nil || m.better(s, best)) {
					best = s
				}
			case s.refs.Load() == 0 && (worst == nil || m.better(s, worst)):
				worst = s
			}
		}
		if !sound {
			best = worst
		}
		if best != nil && len(best.holds) == 0 && m.lean && resident {
			return nil // there is no memory for it; a slot that holds a key will be idle again
		}
		if best == nil || best.refs.CompareAndSwap(0, taken) {
			return best
		}
	}
}

// better reports whether s is a better victim than t.
func (m *Manager) better(s, t *slot) bool {
	if empty := len(s.holds) == 0; empty != (len(t.holds) == 0) {
		return empty != m.lean
	}
	return s.released.Load() < t.released.Load()
}

// errAgain has Get look for another slot. It does not leave this package.
var errAgain = errors.New("keyslot: again")

// program puts k into s and returns a reference to it. The caller has been
// granted s and the engine.
func (m *Manager) program(k *blkcrypto.Key, s *slot) (Slot, error) {
	err := m.repair(k, s)
	if err == nil {
		err = m.load(k, s)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		// While the engine is ours: the next one who needs a slot must not find out
		// for himself, nor an eviction give memory back before we know what we lacked.
		again := errors.Is(err, secret.ErrLimit) && m.economise()
		m.done(s, 0)
		switch {
		case again:
			return Slot{}, errAgain
		case errors.Is(err, blkcrypto.ErrKeyEvicted):
			return Slot{}, err
		}
		return Slot{}, fmt.Errorf("%s: keyslot %d: %w: %w", m.engine.Name(), s.number, ErrProgram, err)
	}
	m.done(s, 1)
	return Slot{m, s}, nil
}

// repair empties s, if it is in quarantine, to make room for k.
func (m *Manager) repair(k *blkcrypto.Key, s *slot) error {
	if s.broken == nil {
		return nil
	}
	if err := m.empty(s); err != nil {
		return fmt.Errorf("in quarantine: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.holds = append(s.holds, k)
	return nil
}

// load programs k into s and maps it there. After an error the slot may hold
// the old key, the new one or a part of either, so it is emptied. The caller
// has the engine and s, and keeps both.
func (m *Manager) load(k *blkcrypto.Key, s *slot) error {
	err := k.Program(m, func(key []byte) error {
		point.AtIndex("keyslot: programming", s.number)
		return m.engine.Program(s.number, k.Config(), key)
	})
	point.AtIndex("keyslot: programmed", s.number)
	if err != nil {
		if broken := m.empty(s); broken != nil {
			err = fmt.Errorf("%w; in quarantine: %w", err, broken)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.stats.Programs++
		k.CountProgram()
		clear(s.holds)
		s.holds = append(s.holds[:0], k)
		m.link(k, s)
	case !errors.Is(err, blkcrypto.ErrKeyEvicted):
		m.stats.Failures++
	}
	return err
}

// empty makes the engine empty s: it is free then, or in quarantine if the
// engine failed. The caller has the engine and s, and keeps both.
func (m *Manager) empty(s *slot) error {
	point.AtIndex("keyslot: emptying", s.number)
	err := m.engine.Evict(s.number)
	point.AtIndex("keyslot: emptied", s.number)
	m.mu.Lock()
	defer m.mu.Unlock()
	was := s.broken
	s.broken = err
	m.tellOf(s, was)
	if err != nil {
		m.stats.Failures++
		s.released.Store(m.clock.Add(1)) // the next attempt is another's
		m.retryLater()
		return err
	}
	m.stats.Evictions++
	for _, k := range s.holds {
		k.CountEviction()
	}
	clear(s.holds)
	s.holds = s.holds[:0]
	return nil
}

// done gives the engine back, and s with so many references. Called with mu
// held.
func (m *Manager) done(s *slot, refs int64) {
	s.refs.Store(refs)
	m.calling = false
	m.pump()
}
