package history

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
)

// An engine is the product's, soft or emulated, with a look into its slots and
// faults at will.
type engine struct {
	inner keyslot.Engine
	m     *keyslot.Manager
	text  string // what it is, for people

	configs map[blkcrypto.Config]int // DUN bytes by the rest of the config

	mu      sync.Mutex
	slots   []slotState
	calling bool
	fault   struct{ program, evict bool }
	nth     int
	wrong   []string      // what the manager must not have done
	hold    chan struct{} // programs and evictions wait until it is closed
}

// A slotState is what the engine was told.
type slotState struct {
	key   []byte // what was programmed last, also by a call that failed
	users int
}

// newEngine puts inner under observation.
func newEngine(inner keyslot.Engine, text string) *engine {
	e := &engine{inner: inner, text: text, slots: make([]slotState, inner.Slots()), configs: map[blkcrypto.Config]int{}}
	for _, c := range inner.Profile().Configs() {
		n := c.DUNBytes
		c.DUNBytes = 0
		e.configs[c] = n
	}
	e.m = keyslot.New(e)
	return e
}

// serves is the model's view of the profile.
func (e *engine) serves(c blkcrypto.Config) bool {
	n := c.DUNBytes
	c.DUNBytes = 0
	return e.configs[c] >= n
}

func (e *engine) Name() string               { return e.inner.Name() }
func (e *engine) Profile() blkcrypto.Profile { return e.inner.Profile() }
func (e *engine) Slots() int                 { return e.inner.Slots() }

// Wrapper is the hardware of an emulated engine.
func (e *engine) Wrapper() keyslot.Wrapper {
	if w, ok := e.inner.(keyslot.Wrapping); ok {
		return w.Wrapper()
	}
	return nil
}

func (e *engine) wrongf(format string, args ...any) {
	e.wrong = append(e.wrong, e.Name()+": "+fmt.Sprintf(format, args...))
}

// enter begins a call that changes a slot.
func (e *engine) enter(what string, slot int) (hold chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.calling {
		e.wrongf("%s of slot %d beside another call (blkcrypto.md, invariant 19)", what, slot)
	}
	if e.slots[slot].users > 0 {
		e.wrongf("%s of slot %d, which is in use (invariant 13)", what, slot)
	}
	e.calling = true
	return e.hold
}

func (e *engine) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calling = false
}

// Program is the engine's, or fails before it or after it.
func (e *engine) Program(slot int, c blkcrypto.Config, key []byte) error {
	if hold := e.enter("program", slot); hold != nil {
		<-hold
	}
	defer e.leave()
	e.mu.Lock()
	fault := e.fault.program
	e.nth++
	late := e.nth%2 == 0
	if !fault || late {
		e.slots[slot].key = bytes.Clone(key)
	}
	e.mu.Unlock()
	if fault && !late {
		return errFault
	}
	if err := e.inner.Program(slot, c, key); err != nil {
		return err
	}
	if fault {
		return errFault
	}
	return nil
}

// Evict is the engine's.
func (e *engine) Evict(slot int) error {
	if hold := e.enter("evict", slot); hold != nil {
		<-hold
	}
	defer e.leave()
	e.mu.Lock()
	fault := e.fault.evict
	e.mu.Unlock()
	if fault {
		return errFault
	}
	err := e.inner.Evict(slot)
	if err == nil {
		e.mu.Lock()
		e.slots[slot].key = nil
		e.mu.Unlock()
	}
	return err
}

func (e *engine) Crypt(slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	e.mu.Lock()
	e.slots[slot].users++
	if e.slots[slot].key == nil {
		e.wrongf("use of slot %d, which holds no key", slot)
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.slots[slot].users--
	}()
	return e.inner.Crypt(slot, d, dun, dst, src)
}

// CryptKey is that of an engine without slots.
func (e *engine) CryptKey(c blkcrypto.Config, key []byte, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	return e.inner.(keyslot.Slotless).CryptKey(c, key, d, dun, dst, src)
}

// Lose makes the engine forget its keys, as a reset does.
func (e *engine) Lose() {
	switch inner := e.inner.(type) {
	case interface{ Lose() }:
		inner.Lose()
	default:
		for i := range e.slots {
			_ = e.inner.Evict(i) // software cannot fail
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.slots {
		if e.slots[i].users > 0 {
			e.wrongf("reset while slot %d is in use", i)
		}
		e.slots[i].key = nil
	}
}

// failing reports whether calls fail, or slots are in quarantine since they did.
func (e *engine) failing() bool {
	e.mu.Lock()
	now := e.fault.program || e.fault.evict
	e.mu.Unlock()
	return now || e.m.Stats().Quarantined > 0
}

func (e *engine) setFaults(program, evict bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault.program, e.fault.evict = program, evict
}

// setHold makes programs and evictions wait, or lets them go.
func (e *engine) setHold(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case on && e.hold == nil:
		e.hold = make(chan struct{})
	case !on && e.hold != nil:
		close(e.hold)
		e.hold = nil
	}
}

// holds reports whether key bytes are in some slot, by what the engine was told
// and, where it can be seen, by what it has.
func (e *engine) holds(key []byte) (slot int, yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, s := range e.slots {
		if s.key != nil && bytes.Equal(s.key, key) {
			return i, true
		}
	}
	return 0, false
}

// back checks that the keys which were in slots before a reset are there again
// (blkcrypto.md, invariant 20).
func (e *engine) back(was []keyslot.Resident) error {
	now := map[uint64]int{}
	for _, r := range e.m.Residents() {
		now[r.ID] = r.Slot
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range was {
		slot, is := now[r.ID]
		if r.Quarantined == "" && r.Slot >= 0 && (!is || e.slots[slot].key == nil) {
			return fmt.Errorf("key %s is not back in its slot (blkcrypto.md, invariant 20)", r.Key)
		}
	}
	return nil
}

// quiet says what is wrong with an engine that nobody uses.
func (e *engine) quiet() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.wrong) > 0 {
		return errors.New(e.wrong[0])
	}
	emulated, _ := e.inner.(*emul.Engine)
	for i, s := range e.slots {
		if s.users != 0 {
			return fmt.Errorf("%s: slot %d has %d users", e.Name(), i, s.users)
		}
		if emulated != nil && s.key == nil && emulated.Enabled(i) {
			return fmt.Errorf("%s: slot %d is enabled after an eviction", e.Name(), i)
		}
	}
	return nil
}

// A spec says which engine a leaf has.
type spec struct {
	text  string // "", "soft" or that of an emulated one
	slots int    // of a soft one
}

// build makes it; hardware is shared by those that take wrapped keys. Slots above
// 0 overrides how many it has, if it has any.
func (s spec) build(name string, hardware *emul.Hardware, slots int) (*engine, error) {
	switch s.text {
	case "":
		return nil, nil
	case "soft":
		if slots == 0 {
			slots = s.slots
		}
		return newEngine(soft.New(name, slots), fmt.Sprintf("soft with %d slots", slots)), nil
	}
	p, err := emul.ParseSpec(s.text)
	if err != nil {
		return nil, err
	}
	if slots > 0 && p.Options.Slots > 0 {
		p.Options.Slots = slots
	}
	if p.Wrapped() {
		p.Options.Hardware = hardware
	}
	return newEngine(emul.New(name, p.Options), s.text), nil
}
