package dm

import (
	"context"

	"keyway/block"
)

// Unaligned returns m for clients that ignore the block size. It is one for
// all handles: a change that is read, modified and written back must know of
// every other such change of the device, whoever makes it. It needs no Close.
func (m *Mapped) Unaligned() block.Device { return m.unaligned() }

// held is a device that somebody else keeps open.
type held struct{ *Mapped }

func (h held) Do(ctx context.Context, r block.Request) error { return h.enter(ctx, &r, &h.entered) }

func (held) Close() error { return nil }
