// Package emul is inline engines as phones have them: UFS host controllers, eMMC
// controllers with CQHCI, the Exynos FMP. An engine here has their keyslots and
// configuration registers, takes no more than they take, can be as slow, can fail
// on purpose, and can lose its keys in a reset; what it encrypts is the real thing.
package emul

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/cipher"
	"keyway/internal/secret"
	"keyway/keyslot"
)

// Errors that an engine answers.
var (
	// ErrInjected is a failure that the options or a message asked for.
	ErrInjected = errors.New("failure injected into the engine")
	// ErrInvalidConfig is the controller's "invalid crypto config": a request
	// named a slot that is not enabled.
	ErrInvalidConfig = errors.New("invalid crypto config: the keyslot is not enabled")
)

// Options describe an engine. Kind gives those of known controllers.
type Options struct {
	Slots    int // 0: no keyslots, each request brings its key
	Profile  blkcrypto.Profile
	Hardware *Hardware // for wrapped keys; nil: the profile has none

	ProgramDelay, EvictDelay, RequestDelay time.Duration

	// Probabilities from 0 to 1 that a call fails with ErrInjected.
	FailProgram, FailEvict, FailRequest float64
	Seed                                uint64 // of the dice
}

// Engine is an emulated controller. It belongs to a keyslot.Manager.
type Engine struct {
	name  string
	o     Options
	slots []registers

	dice struct {
		sync.Mutex
		*rand.Rand
	}
	faults [calls]fault // guarded by dice
	down   error        // guarded by dice: what every call answers, see Fail
}

// registers are the configuration of one keyslot: 16 words of key, a word with
// enable bit, capability and data unit size, and a reserved one. They lie in
// locked memory, as the hardware's are out of reach.
type registers struct {
	mu     sync.RWMutex   // writing: all but requests
	words  *secret.Buffer // nil: all zero
	cipher *cipher.Units  // made when the slot is enabled; nil before
}

const (
	regKey    = 0  // bytes: the key, for XTS the halves at 0 and 32
	regConfig = 64 // bytes: data unit mask, capability index, reserved, enable
	regEnable = regConfig + 3
	regsSize  = 72
)

// New returns an engine with the given options.
func New(name string, o Options) *Engine {
	if o.Hardware == nil {
		o.Profile = o.Profile.Intersect(blkcrypto.AllRaw())
	}
	e := &Engine{name: name, o: o, slots: make([]registers, o.Slots)}
	e.dice.Rand = rand.New(rand.NewPCG(o.Seed, 0))
	for c, p := range [calls]float64{o.FailProgram, o.FailEvict, o.FailRequest} {
		e.faults[c].rate = p
	}
	return e
}

var (
	_ keyslot.Wrapping = (*Engine)(nil)
	_ keyslot.Slotless = (*Engine)(nil)
	_ keyslot.Loser    = (*Engine)(nil)
)

// Name says which engine this is.
func (e *Engine) Name() string { return e.name }

// Profile is what the options say.
func (e *Engine) Profile() blkcrypto.Profile { return e.o.Profile }

// Slots is the number of keyslots; 0 if requests bring their keys.
func (e *Engine) Slots() int { return len(e.slots) }

// Wrapper is the hardware behind the engine, nil if it takes raw keys only.
func (e *Engine) Wrapper() keyslot.Wrapper {
	if e.o.Hardware == nil {
		return nil
	}
	return e.o.Hardware
}

// Program writes the registers in the order that controllers want: disabled
// first, then the key, then the configuration, the enable bit last. A fault
// strikes in between, so that a disabled slot with a part of the key is left.
func (e *Engine) Program(slot int, c blkcrypto.Config, key []byte) error {
	if !e.o.Profile.Supports(c) {
		return fmt.Errorf("%w: no capability of the controller is %v", block.ErrNotSupported, c)
	}
	inline, made, err := e.expand(c, key)
	if err != nil {
		return err
	}
	defer inline.Wipe()
	r := &e.slots[slot]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.words == nil {
		if r.words, err = secret.New(regsSize); err != nil {
			made.Wipe()
			return err
		}
	}
	w := r.words.Bytes()
	w[regEnable] = 0
	r.disable()
	half := inline.Len() / 2
	copy(w[regKey:], inline.Bytes()[:half])
	if err := e.attempt(program, e.o.ProgramDelay); err != nil {
		made.Wipe()
		return err
	}
	copy(w[regKey+32:], inline.Bytes()[half:])
	w[regConfig] = byte(c.DataUnitSize / blkcrypto.MinDataUnit)
	w[regEnable] = 0x80
	r.cipher = made
	return nil
}

// disable makes a slot unusable; the key stays in its registers.
func (r *registers) disable() {
	if r.cipher != nil {
		r.cipher.Wipe()
		r.cipher = nil
	}
}

// expand returns the key that goes into the registers, and the cipher that it is.
func (e *Engine) expand(c blkcrypto.Config, key []byte) (*secret.Buffer, *cipher.Units, error) {
	inline, err := e.inline(c, key)
	if err != nil {
		return nil, nil, err
	}
	c.KeyType = blkcrypto.Raw // which it is now
	made, err := cipher.NewUnits(c, inline.Bytes())
	if err != nil {
		inline.Wipe()
		return nil, nil, err
	}
	return inline, made, nil
}

// inline returns the key that goes into the registers.
func (e *Engine) inline(c blkcrypto.Config, key []byte) (*secret.Buffer, error) {
	if c.KeyType == blkcrypto.HWWrapped {
		return e.o.Hardware.inlineKey(key)
	}
	if len(key) != c.Mode.KeySize() {
		return nil, fmt.Errorf("%w: %d bytes for %v", keyslot.ErrKeySize, len(key), c.Mode)
	}
	b, err := secret.New(len(key))
	if err != nil {
		return nil, err
	}
	copy(b.Bytes(), key)
	return b, nil
}

// Evict clears all registers of the slot.
func (e *Engine) Evict(slot int) error {
	if err := e.attempt(evict, e.o.EvictDelay); err != nil {
		return err
	}
	e.slots[slot].clear()
	return nil
}

func (r *registers) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disable()
	r.words.Wipe()
	r.words = nil
}

// Lose is a reset of the controller: every register is zero afterwards. Pass it
// to the Reset of the keyslot.Manager, which brings the keys back.
func (e *Engine) Lose() {
	for i := range e.slots {
		e.slots[i].clear()
	}
}

// Enabled reports whether a slot is enabled.
func (e *Engine) Enabled(slot int) bool {
	r := &e.slots[slot]
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.cipher != nil
}

// Crypt transforms whole data units. A slot that is not enabled fails the
// request: nothing passes through in clear.
func (e *Engine) Crypt(slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	if err := e.attempt(crypt, e.o.RequestDelay); err != nil {
		return err
	}
	r := &e.slots[slot]
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.cipher == nil {
		return ErrInvalidConfig
	}
	return r.cipher.Crypt(bool(d), dun, dst, src)
}

// CryptKey is Crypt of a controller without keyslots: the key comes with the
// request and is forgotten at its end.
func (e *Engine) CryptKey(c blkcrypto.Config, key []byte, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	if !e.o.Profile.Supports(c) {
		return fmt.Errorf("%w: no capability of the controller is %v", block.ErrNotSupported, c)
	}
	if err := e.attempt(crypt, e.o.RequestDelay); err != nil {
		return err
	}
	inline, made, err := e.expand(c, key)
	if err != nil {
		return err
	}
	defer made.Wipe()
	inline.Wipe()
	return made.Crypt(bool(d), dun, dst, src)
}
