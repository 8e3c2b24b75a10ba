package nbd

import (
	"context"
	"errors"
	"syscall"

	"keyway/block"
	"keyway/internal/nbdproto"
)

// errno is the one place where errors of devices become errors of the
// protocol.
func errno(op block.Op, err error) nbdproto.Errno {
	switch {
	case err == nil:
		return nbdproto.OK
	case errors.Is(err, block.ErrReadOnly):
		return nbdproto.EPERM
	case errors.Is(err, block.ErrOutOfRange):
		return outOfRange(op)
	case errors.Is(err, block.ErrNoSpace), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return nbdproto.ENOSPC
	case errors.Is(err, block.ErrNotSupported):
		return nbdproto.ENOTSUP
	case errors.Is(err, block.ErrInvalid), errors.Is(err, block.ErrNoCrypto):
		return nbdproto.EINVAL
	case errors.Is(err, block.ErrClosed), errors.Is(err, errDraining), errors.Is(err, context.Canceled):
		return nbdproto.ESHUTDOWN
	}
	return nbdproto.EIO
}

// outOfRange is what the protocol wants for requests beyond the end.
func outOfRange(op block.Op) nbdproto.Errno {
	if op == block.OpWrite || op == block.OpWriteZeroes {
		return nbdproto.ENOSPC
	}
	return nbdproto.EINVAL
}

var errDraining = errors.New("the export is being shut down")
