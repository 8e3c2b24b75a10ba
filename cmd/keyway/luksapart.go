package main

import (
	"fmt"
	"io"

	"keyway/luks"
)

// checkApart looks for signs that the image is not what belongs to a header in a file
// of its own, of headerSize bytes: that cannot be known, and under a wrong header all
// that is read is noise, and all that is written destroys.
func checkApart(h *luks.Header, image string, data io.ReaderAt, dataSize, headerSize int64, exact bool) error {
	first := h.Segments[0].Offset
	if exact {
		first -= headerSize
	}
	own, err := luks.Read(data, dataSize, luks.Options{Data: -1})
	has := err == nil && own.Copies[0].Err == nil
	switch {
	case has && exact:
		return misuse{
			error: fmt.Errorf("%s has a header of its own (UUID %q): it was not formatted with --exact-size, and its header is not its data", image, own.UUID),
			way:   "leave --exact-size out; and --header too, unless the header of the image is not to be used",
		}
	case has && first == 0:
		warn("%s begins with a header of its own (UUID %q), and by the other one with data: writing destroys that header", image, own.UUID)
	case !has && !exact && first == headerSize:
		warn("the header ends where the data begins, at byte %d: if %s was formatted with --exact-size, open it with --exact-size, or what is written destroys its data", first, image)
	}
	return nil
}
