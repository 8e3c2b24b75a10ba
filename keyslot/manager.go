package keyslot

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/point"
)

// A Manager shares the keyslots of one engine among keys. A key is mapped to
// at most one slot, a slot is reprogrammed only when no request uses it, and
// the victim is the idle slot that was released longest ago (blkcrypto.md,
// invariants 13, 15 and 16).
type Manager struct {
	engine  Engine // nil: passthrough
	pass    Passthrough
	direct  directs           // of an engine without slots
	profile blkcrypto.Profile // the engine's
	slots   []slot

	// table finds the slot of a key: chains of mapped slots, by the low bits
	// of the key's ID. It is changed with mu held and read without: a reader
	// may miss a slot that moves, and must look again once it has a reference.
	table []atomic.Pointer[slot]

	open   atomic.Bool            // a Get that finds its key need not ask for mu
	queued atomic.Bool            // somebody waits: the release of a slot may concern him
	tracer atomic.Pointer[Tracer] // nil: nobody traces

	_     [64]byte      // away from what every Get reads
	clock atomic.Uint64 // the tick of the last release
	_     [56]byte

	mu        sync.Mutex     // guards what follows
	queue     []*waiter      // in order of arrival
	starved   *waiter        // the first for whom there is an engine but no slot
	passed    int            // hits served past starved
	calling   bool           // somebody calls Program or Evict of the engine
	lean      bool           // there is no memory for more keys than are in slots
	resetting bool           // a reset owns the engine, and takes all slots
	closed    bool           // by Close
	leaving   map[uint64]int // evictions under way of keys, by ID
	stats     Stats
	retry     *time.Timer   // the next attempt at the slots in quarantine; nil: none is due
	backoff   time.Duration // before it
	observe   func(Event)   // nil: nobody listens
}

// A slot's refs count the requests that use it; taken means that whoever has
// the engine has it too.
type slot struct {
	number   int
	refs     atomic.Int64
	released atomic.Uint64                 // tick of the last release
	key      atomic.Pointer[blkcrypto.Key] // the mapped key: requests find it here
	next     atomic.Pointer[slot]          // in the chain of table

	// holds are the keys of which something may be in the engine's slot: the
	// mapped one; beside it, while the engine is called and after it failed,
	// others. broken is why the slot is in quarantine: the engine could not
	// empty it. Both are guarded by Manager.mu.
	holds  []*blkcrypto.Key
	broken error

	_ [48]byte // two cache lines: adjacent ones are fetched in pairs
}

const taken = -1

// ref adds a reference unless s is taken.
func (s *slot) ref() bool {
	for {
		n := s.refs.Load()
		if n < 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// New returns a manager of e's slots, of which there are none if e is Slotless. e
// belongs to it: nobody else may program or evict.
func New(e Engine) *Manager {
	n := e.Slots()
	if n < 1 {
		return newDirect(e)
	}
	m := &Manager{
		engine: e, profile: e.Profile(), slots: make([]slot, n),
		table:   make([]atomic.Pointer[slot], 2<<bits.Len(uint(n-1))), // at most half full
		leaving: map[uint64]int{},
	}
	for i := range m.slots {
		m.slots[i].number = i
	}
	m.clock.Store(1) // no slot has been released yet: their ticks are 0
	m.open.Store(true)
	return m
}

func newDirect(e Engine) *Manager {
	direct, ok := e.(Slotless)
	if !ok {
		panic("keyslot: an engine with neither slots nor requests that bring their keys")
	}
	return &Manager{
		engine: e, profile: e.Profile(), leaving: map[uint64]int{},
		table:  make([]atomic.Pointer[slot], 1),
		direct: directs{engine: direct, slots: map[uint64]*slot{}, changed: make(chan struct{})},
	}
}

// Profile is the set of configs that the engine supports.
func (m *Manager) Profile() blkcrypto.Profile {
	if m.engine == nil {
		return m.pass.Profile()
	}
	return m.profile
}

// Name says which engine this is.
func (m *Manager) Name() string {
	if m.engine == nil {
		return m.pass.Name
	}
	return m.engine.Name()
}

// A Slot is a reference to a keyslot that holds a key. Whoever has one must
// not wait for another of the same manager, and gives it back by Put before
// it passes a request on (blkcrypto.md, invariant 37).
type Slot struct {
	m *Manager
	s *slot
}

// Get returns a slot that holds k, and programs one if there is none. It
// waits for a slot in the order of arrival until ctx ends; with nowait it
// returns block.ErrWouldBlock rather than wait or program. It fails with
// blkcrypto.ErrKeyEvicted once k is dead, with block.ErrNoCrypto if the engine
// does not support k's config, and with block.ErrClosed after Close.
//
// Hot: no allocation if k is in a slot.
func (m *Manager) Get(ctx context.Context, k *blkcrypto.Key, nowait bool) (Slot, error) {
	if m.open.Load() {
		if s := m.find(k); s != nil {
			point.At("keyslot: found")
			if m.use(s, k) {
				return Slot{m, s}, nil
			}
		}
	}
	return m.getSlow(ctx, k, nowait)
}

// use adds a reference to s if k, which find saw there, still is: the
// reference keeps it.
func (m *Manager) use(s *slot, k *blkcrypto.Key) bool {
	if !s.ref() {
		return false
	}
	point.At("keyslot: referenced")
	if s.key.Load() == k && !k.Dead() {
		return true
	}
	m.drop(s)
	return false
}

// Put gives the slot back.
//
// Hot: no allocation.
func (s Slot) Put() {
	if s.s == nil {
		return
	}
	if s.s.number == unnumbered {
		s.m.putDirect(s.s)
		return
	}
	// Before the reference goes: an idle slot is chosen by its tick. The slot
	// that was released last needs no newer one.
	if s.s.released.Load() != s.m.clock.Load() {
		s.s.released.Store(s.m.clock.Add(1))
	}
	point.At("keyslot: putting")
	s.m.drop(s.s)
}

// Crypt transforms data units with the key in the slot, as Engine.Crypt does.
func (s Slot) Crypt(d Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	if s.s.number == unnumbered {
		return s.m.cryptDirect(s.s, d, dun, dst, src)
	}
	return s.m.engine.Crypt(s.s.number, d, dun, dst, src)
}

// drop takes a reference away and tells those who wait for that.
func (m *Manager) drop(s *slot) {
	n := s.refs.Add(-1)
	if n < 0 {
		panic("keyslot: slot released twice")
	}
	point.At("keyslot: released")
	if n == 0 && m.queued.Load() {
		m.mu.Lock()
		m.pump()
		m.mu.Unlock()
	}
}

// check says why no slot can ever hold k, or returns nil.
func (m *Manager) check(k *blkcrypto.Key) error {
	if k.Dead() {
		return blkcrypto.ErrKeyEvicted
	}
	if c := k.Config(); !m.profile.Supports(c) {
		return fmt.Errorf("%w: %s does not support %v", block.ErrNoCrypto, m.engine.Name(), c)
	}
	return nil
}

func (m *Manager) chain(k *blkcrypto.Key) *atomic.Pointer[slot] {
	return &m.table[k.ID()&uint64(len(m.table)-1)]
}

// find returns the slot to which k is mapped, nil if there is none. Without
// mu the answer may be out of date.
func (m *Manager) find(k *blkcrypto.Key) *slot {
	s := m.chain(k).Load()
	for s != nil && s.key.Load() != k {
		s = s.next.Load()
	}
	return s
}

// link maps k to s, which the caller has taken. Called with mu held.
func (m *Manager) link(k *blkcrypto.Key, s *slot) {
	head := m.chain(k)
	s.key.Store(k)
	s.next.Store(head.Load())
	head.Store(s)
}

// unlink undoes link, if s is mapped. Called with mu held.
func (m *Manager) unlink(s *slot) {
	k := s.key.Load()
	if k == nil {
		return
	}
	p := m.chain(k)
	for p.Load() != s {
		p = &p.Load().next
	}
	p.Store(s.next.Load())
	s.key.Store(nil)
}
