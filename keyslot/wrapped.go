package keyslot

import (
	"errors"

	"keyway/internal/secret"
)

// Errors of hardware-wrapped keys, compared with errors.Is. In brackets: what
// Linux answers.
var (
	ErrBadBlob = errors.New("not a wrapped key of this hardware, or in the wrong form") // EBADMSG
	ErrKeySize = errors.New("wrong key size")                                           // EINVAL
)

// A Wrapper is hardware that keeps keys from software: engines that share it take
// keys in a form that only it can open (blkcrypto.md, section 10.2). What the
// methods return is the caller's to wipe.
type Wrapper interface {
	// ID names the hardware: wrapped keys move between engines of equal IDs.
	ID() string

	// Import wraps a raw key for the long term. ErrKeySize: not a size that the
	// hardware takes.
	Import(raw []byte) (longTerm *secret.Buffer, err error)

	// Generate makes a key and wraps it for the long term.
	Generate() (longTerm *secret.Buffer, err error)

	// Prepare makes of it the form that a request's key has, good until the
	// hardware starts anew. ErrBadBlob: not wrapped by this hardware for the long
	// term.
	Prepare(longTerm []byte) (ephemeral *secret.Buffer, err error)

	// DeriveSecret returns what software may have of a prepared key: 32 bytes from
	// which the key for the data cannot be found. ErrBadBlob as above.
	DeriveSecret(ephemeral []byte) (*secret.Buffer, error)
}

// Wrapping is an Engine that takes hardware-wrapped keys.
type Wrapping interface {
	Engine
	// Wrapper is constant; nil if this engine takes raw keys only.
	Wrapper() Wrapper
}

// Wrapper returns the hardware behind the engine, nil if it has none.
func (m *Manager) Wrapper() Wrapper {
	if m.engine == nil && m.pass.Wrapper != nil {
		return m.pass.Wrapper()
	}
	if w, ok := m.engine.(Wrapping); ok {
		return w.Wrapper()
	}
	return nil
}
