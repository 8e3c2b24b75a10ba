package fstype

import (
	"errors"
	"fmt"
)

// ErrNoWrite: contents must not be written in place. The error says why.
var ErrNoWrite = errors.New("not written in place")

// Refuse returns an ErrNoWrite with its reason.
func Refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNoWrite, fmt.Sprintf(format, args...))
}
