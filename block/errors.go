package block

import (
	"errors"
	"fmt"
)

// Control sentinels, compared with errors.Is.
var (
	ErrWouldBlock   = errors.New("the request would block")
	ErrNoCrypto     = errors.New("the request's encryption context cannot be honoured here")
	ErrInvalid      = errors.New("invalid request")
	ErrOutOfRange   = errors.New("beyond the end of the device")
	ErrReadOnly     = errors.New("the device is read-only")
	ErrNotSupported = errors.New("not supported by the device")
	ErrNoSpace      = errors.New("no space left on the medium")
	ErrIO           = errors.New("input/output error")
	ErrClosed       = errors.New("the device is closed")
	ErrBusy         = errors.New("the device is in use")
)

// An OpError says which request failed on which device. Only mapped devices
// make one, the lowest that sees the error.
type OpError struct {
	Dev      string
	Op       Op
	Off, Len int64
	Err      error
}

func (e *OpError) Error() string {
	return fmt.Sprintf("%s: %v of %d bytes at %d: %v", e.Dev, e.Op, e.Len, e.Off, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }
