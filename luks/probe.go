package luks

import (
	"errors"
	"fmt"
	"io"
)

// Probe says in a few words which header of LUKS is on r, which has size bytes,
// damaged ones included: what Format would destroy. It is empty if there is none;
// what else may be there is not looked at.
func Probe(r io.ReaderAt, size int64) (string, error) {
	h, err := Read(r, size, Options{Data: -1})
	switch {
	case err == nil:
		return fmt.Sprintf("LUKS%d header, UUID %s", h.Version, printable(h.UUID)), nil
	case errors.Is(err, ErrPolicy):
		return fmt.Sprintf("LUKS header that asks for what is forbidden: %v", err), nil
	case !errors.Is(err, ErrNotLUKS):
		var damaged *readError
		if errors.As(err, &damaged) {
			return "", err
		}
		return fmt.Sprintf("damaged header of LUKS: %v", err), nil
	}
	return "", nil
}
