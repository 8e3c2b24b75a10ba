package keyslot

import (
	"errors"

	"keyway/blkcrypto"
)

// ErrProgram says that the engine did not take a key. The data of the request is
// as it was.
var ErrProgram = errors.New("program")

// A Reserver is an Engine in memory, which may run out.
type Reserver interface {
	Engine

	// Reserve sees to it that until release, which is called once, a key of mode
	// m can be programmed over another one of its kind, or into an engine that
	// holds none, also when there is no more memory for keys.
	Reserve(m blkcrypto.Mode) (release func(), err error)
}

// Reserve keeps what the engine needs to serve keys of mode m, however many, one
// after the other if need be, also when memory for keys has run out: requests
// that depend on it never fail for that (blkcrypto.md, invariant 36). release is
// called once. An engine that is not a Reserver needs nothing.
func (m *Manager) Reserve(mode blkcrypto.Mode) (release func(), err error) {
	if r, ok := m.engine.(Reserver); ok {
		return r.Reserve(mode)
	}
	return func() {}, nil
}

// economise makes the manager reprogram slots that hold keys rather than fill
// empty ones, until an eviction has given memory back. It reports whether there is
// one to try: also if it has been doing so and the slot that was chosen had memory of
// the wrong kind, which it has given back now. A slot in quarantine is none: nobody
// knows when it will be idle. Called with mu held, by whoever has the engine.
func (m *Manager) economise() bool {
	m.lean = false
	for i := range m.slots {
		if s := &m.slots[i]; s.broken == nil && len(s.holds) > 0 {
			m.lean = true
		}
	}
	return m.lean
}
