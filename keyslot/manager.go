package keyslot

import (
	"context"
	"sync"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/block"
)

// A Manager shares the keyslots of one engine among keys. A key is in at most
// one slot, a slot is reprogrammed only when no request uses it, and the
// victim is the idle slot that was released longest ago (blkcrypto.md,
// invariants 13, 15 and 16).
type Manager struct {
	engine Engine // nil: passthrough
	pass   passthrough
	slots  []slot

	// index finds the slot of a key without a lock. It is replaced, never
	// changed, and empty whenever requests must go through the queue: while
	// somebody waits for a slot and while the engine is being reset.
	index   atomic.Pointer[map[uint64]*slot]
	clock   atomic.Uint64 // ticks at each release
	waiting atomic.Int64  // parties that a release must tell

	engineFree chan struct{} // holds the engine's one token while nobody calls it

	mu        sync.Mutex // guards what follows
	byKey     map[uint64]*slot
	pending   map[uint64]bool // keys being programmed
	leaving   map[uint64]bool // keys being evicted
	queue     []*waiter       // in order of arrival
	passed    int             // hits served past a waiter that has no slot
	resetting bool
	changed   chan struct{} // closed and replaced when a slot's state changes
	stats     Stats
}

// maxPassed bounds how many requests whose key is in a slot may pass a waiter
// that needs one. Without passing, a single slot would be reprogrammed for
// each request of two keys in turn; without a bound, the waiter could starve
// (blkcrypto.md, invariant 17).
const maxPassed = 64

// A slot's refs count the requests that use it; taken means that the manager
// has it for itself.
type slot struct {
	number   int
	refs     atomic.Int64
	released atomic.Uint64                 // tick of the last release
	key      atomic.Pointer[blkcrypto.Key] // what is in the engine; changed only while taken or by a reset

	// Quarantine, guarded by Manager.mu: the engine could not empty the slot,
	// and beside key these may be in it.
	broken error
	maybe  []*blkcrypto.Key
}

const taken = -1

// ref adds a reference unless the manager has taken s.
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

// A waiter is one Get that could not be served at once.
type waiter struct {
	key   *blkcrypto.Key
	ready chan grant // buffered: the manager never waits for a waiter
}

// A grant gives a waiter a slot with its key, or one to program.
type grant struct {
	slot    *slot
	program bool
	err     error
}

// New returns a manager of e's slots.
func New(e Engine) *Manager {
	n := e.Slots()
	if n < 1 {
		panic("keyslot: an engine without slots needs no manager of slots")
	}
	m := &Manager{
		engine: e, slots: make([]slot, n), engineFree: make(chan struct{}, 1),
		byKey: map[uint64]*slot{}, pending: map[uint64]bool{}, leaving: map[uint64]bool{},
		changed: make(chan struct{}),
	}
	for i := range m.slots {
		m.slots[i].number = i
	}
	m.index.Store(&noIndex)
	m.engineFree <- struct{}{}
	return m
}

// Profile is the set of configs that the engine supports.
func (m *Manager) Profile() blkcrypto.Profile {
	if m.engine == nil {
		return m.pass.profile()
	}
	return m.engine.Profile()
}

// Name says which engine this is.
func (m *Manager) Name() string {
	if m.engine == nil {
		return m.pass.name
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
// blkcrypto.ErrKeyEvicted once the eviction of k has begun, and with
// block.ErrNoCrypto if the engine does not support k's config.
//
// Hot: no allocation if k is in a slot.
func (m *Manager) Get(ctx context.Context, k *blkcrypto.Key, nowait bool) (Slot, error) {
	if m.engine == nil {
		return Slot{}, nil
	}
	if s := (*m.index.Load())[k.ID()]; s != nil && s.ref() {
		// The reference keeps the key where it is; what the index said may be
		// older than that.
		if s.key.Load() == k && !k.Evicted() {
			return Slot{m, s}, nil
		}
		m.drop(s)
	}
	return m.getSlow(ctx, k, nowait)
}

// Put gives the slot back.
//
// Hot: no allocation.
func (s Slot) Put() {
	if s.s != nil {
		s.m.release(s.s)
	}
}

func (m *Manager) release(s *slot) {
	s.released.Store(m.clock.Add(1)) // first: once refs is 0 the slot is chosen by it
	m.drop(s)
}

// drop takes a reference away and tells whoever waits for that.
func (m *Manager) drop(s *slot) {
	n := s.refs.Add(-1)
	if n < 0 {
		panic("keyslot: slot released twice")
	}
	if n == 0 && m.waiting.Load() > 0 {
		m.mu.Lock()
		m.pump()
		m.mu.Unlock()
	}
}

// Crypt transforms data units with the key in the slot, as Engine.Crypt does.
func (s Slot) Crypt(d Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	return s.m.engine.Crypt(s.s.number, d, dun, dst, src)
}
