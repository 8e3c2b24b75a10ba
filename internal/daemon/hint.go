package daemon

import (
	"errors"

	"keyway/internal/secret"
)

// hinted is an error with the way out.
type hinted struct {
	error
	way string
}

func (h hinted) Unwrap() error { return h.error }

// Hint is the way out, for people.
func (h hinted) Hint() string { return h.way }

// hint adds the way out to err.
func hint(err error, way string) error { return hinted{err, way} }

// Hint returns the way out that err, or what it wraps, knows; "" if none.
func Hint(err error) string {
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return h.Hint()
	}
	if errors.Is(err, secret.ErrLimit) {
		return noMemory
	}
	return ""
}
