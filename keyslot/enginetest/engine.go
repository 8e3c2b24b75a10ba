// Package enginetest has an inline engine made to be watched and disturbed:
// tests of keyslot managers script its faults and delays, and it reports
// every call that a manager must not make.
package enginetest

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
)

// An Op is a call of the engine.
type Op uint8

const (
	Program Op = iota
	Evict
	Crypt
)

func (o Op) String() string { return [...]string{"program", "evict", "crypt"}[o] }

// A Call is what Before and Fault are asked about.
type Call struct {
	Op   Op
	Slot int
	Nth  int // of this Op, from 0
}

// TB is the part of testing.TB that Engine needs.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// Engine is a keyslot.Engine whose cipher is x XOR key, repeated: 64 zeroes
// become the 64 bytes of the key, so that whoever has a slot can see which key
// is in it. Set the functions before use.
type Engine struct {
	// Before is called at the start of each call, without locks: it may block.
	Before func(Call)

	// Fault makes a call fail. What a failed Program leaves in the slot
	// varies: the old key, the new one, half of it, nothing. A failed Evict
	// leaves everything.
	Fault func(Call) error

	tb TB

	mu    sync.Mutex
	slots []state
	inner int    // Program and Evict under way
	calls [3]int // made, by Op
	log   []Call // Program and Evict, in order
}

type state struct {
	key   []byte
	users int // Crypt under way
}

// New returns an engine with n slots, all empty. It reports to tb.
func New(tb TB, n int) *Engine { return &Engine{tb: tb, slots: make([]state, n)} }

var _ keyslot.Engine = (*Engine)(nil)

// ErrEmpty answers Crypt with an empty slot.
var ErrEmpty = errors.New("enginetest: the slot is empty")

func (e *Engine) Name() string { return "the test engine" }

// Profile is AES-256-XTS with data units of 512 and 4096 bytes and 8 DUN bytes.
func (e *Engine) Profile() blkcrypto.Profile {
	var p blkcrypto.Profile
	for _, unit := range []int{512, 4096} {
		p.Add(blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: 8})
	}
	return p
}

func (e *Engine) Slots() int { return len(e.slots) }

func (e *Engine) Program(slot int, c blkcrypto.Config, key []byte) error {
	call := e.enter(Program, slot)
	err := e.disturb(call)
	p := e.Profile()
	if !p.Supports(c) {
		e.tb.Errorf("program of slot %d with unsupported config %v", slot, c)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inner--
	s := &e.slots[slot]
	if s.users > 0 {
		e.tb.Errorf("slot %d programmed while in use", slot)
	}
	switch {
	case err == nil:
		s.key = bytes.Clone(key)
	case call.Nth%4 == 1:
		s.key = bytes.Clone(key)
	case call.Nth%4 == 2:
		s.key = bytes.Clone(key[:len(key)/2])
	case call.Nth%4 == 3:
		s.key = nil
	}
	return err
}

func (e *Engine) Evict(slot int) error {
	err := e.disturb(e.enter(Evict, slot))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inner--
	if e.slots[slot].users > 0 {
		e.tb.Errorf("slot %d evicted while in use", slot)
	}
	if err == nil {
		e.slots[slot].key = nil
	}
	return err
}

func (e *Engine) Crypt(slot int, _ keyslot.Direction, _ blkcrypto.DUN, dst, src block.Segments) error {
	e.mu.Lock()
	s := &e.slots[slot]
	key := s.key
	s.users++
	call := e.count(Crypt, slot)
	e.mu.Unlock()
	err := e.disturb(call)
	defer func() {
		e.mu.Lock()
		s.users--
		if !bytes.Equal(s.key, key) {
			e.tb.Errorf("the key in slot %d changed during a transform", slot)
		}
		e.mu.Unlock()
	}()
	if err != nil {
		return err
	}
	if key == nil {
		return ErrEmpty
	}
	b := make([]byte, src.Len())
	src.CopyTo(b)
	for i := range b {
		b[i] ^= key[i%len(key)]
	}
	dst.CopyFrom(b)
	return nil
}

// Lose empties all slots, as a reset of the hardware does.
func (e *Engine) Lose() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.slots {
		if e.slots[i].users > 0 {
			e.tb.Errorf("the engine loses its keys while slot %d is in use", i)
		}
		e.slots[i].key = nil
	}
}

// Where returns the slots that hold key, or a part of it.
func (e *Engine) Where(key []byte) []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []int
	for i, s := range e.slots {
		if s.key != nil && bytes.HasPrefix(key, s.key) {
			all = append(all, i)
		}
	}
	return all
}

// Occupied is the number of slots that hold anything.
func (e *Engine) Occupied() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, s := range e.slots {
		if s.key != nil {
			n++
		}
	}
	return n
}

// Calls is the number of calls of one kind so far.
func (e *Engine) Calls(op Op) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[op]
}

// Log returns the calls of Program and Evict so far, in order.
func (e *Engine) Log() []Call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.log)
}

// enter begins Program or Evict.
func (e *Engine) enter(op Op, slot int) Call {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.inner++; e.inner > 1 {
		e.tb.Errorf("%v of slot %d while another call is under way", op, slot)
	}
	if e.slots[slot].users > 0 {
		e.tb.Errorf("%v of slot %d while in use", op, slot)
	}
	c := e.count(op, slot)
	e.log = append(e.log, c)
	return c
}

func (e *Engine) count(op Op, slot int) Call {
	c := Call{op, slot, e.calls[op]}
	e.calls[op]++
	return c
}

func (e *Engine) disturb(c Call) error {
	if e.Before != nil {
		e.Before(c)
	}
	if e.Fault != nil {
		return e.Fault(c)
	}
	return nil
}
