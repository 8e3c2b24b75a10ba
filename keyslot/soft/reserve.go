package soft

import (
	"errors"
	"sync"

	"keyway/blkcrypto"
	"keyway/internal/cipher"
	"keyway/internal/secret"
)

// reserves hold locked memory for one more cipher of each mode that somebody
// counts on: a spare, which goes when there is no other memory for a key, and is
// made again when an eviction has given some back.
type reserves struct {
	mu sync.Mutex
	of map[blkcrypto.Mode]*reserve
}

type reserve struct {
	users int
	spare *cipher.Units // nil: it has been used
}

// Reserve keeps memory for one cipher of mode m in reserve until release.
func (e *Engine) Reserve(m blkcrypto.Mode) (release func(), err error) {
	e.reserves.mu.Lock()
	defer e.reserves.mu.Unlock()
	r := e.reserves.of[m]
	if r == nil {
		r = &reserve{}
		if e.reserves.of == nil {
			e.reserves.of = map[blkcrypto.Mode]*reserve{}
		}
		e.reserves.of[m] = r
	}
	if r.users == 0 {
		if r.spare, err = newSpare(m); err != nil {
			return nil, err
		}
	}
	r.users++
	return func() {
		e.reserves.mu.Lock()
		defer e.reserves.mu.Unlock()
		if r.users--; r.users == 0 {
			r.drop()
		}
	}, nil
}

// drop gives the spare's memory back, and reports whether there was any.
func (r *reserve) drop() bool {
	if r.spare == nil {
		return false
	}
	r.spare.Wipe()
	r.spare = nil
	return true
}

// newSpare makes a cipher that encrypts nothing. Its key is no secret, and so it
// takes no more locked memory than the cipher that will have its place.
func newSpare(m blkcrypto.Mode) (*cipher.Units, error) {
	key := make([]byte, m.KeySize())
	for i := range key {
		key[i] = byte(i)
	}
	return cipher.NewUnits(blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: blkcrypto.MinDataUnit, DUNBytes: 1}, key)
}

// expand makes the cipher for a slot. Where there is no memory for it, the slot's
// old cipher goes first, and then the spares.
func (e *Engine) expand(slot int, c blkcrypto.Config, key []byte) (*cipher.Units, error) {
	made, err := cipher.NewUnits(c, key)
	if !errors.Is(err, secret.ErrLimit) {
		return made, err
	}
	e.put(slot, nil)
	if made, err = cipher.NewUnits(c, key); !errors.Is(err, secret.ErrLimit) {
		return made, err
	}
	e.reserves.mu.Lock()
	r := e.reserves.of[c.Mode]
	used := r != nil && r.drop()
	e.reserves.mu.Unlock()
	if !used {
		return nil, err
	}
	return cipher.NewUnits(c, key)
}

// refill makes spares that were used again, if there is memory.
func (e *Engine) refill() {
	e.reserves.mu.Lock()
	defer e.reserves.mu.Unlock()
	for m, r := range e.reserves.of {
		if r.users > 0 && r.spare == nil {
			r.spare, _ = newSpare(m) // else the next eviction tries
		}
	}
}
