package daemon

import (
	"keyway/internal/trace"
	"keyway/keyslot"
)

// Trace has w told of every request that reads contents with a key from now on, of the
// engine of the image and of the fallback. w stays the caller's, who closes it after
// Close, which evicts the keys.
func (i *Image) Trace(w *trace.Writer) {
	for _, m := range []*keyslot.Manager{i.m.Engine(), processFallback()} {
		if m != nil {
			m.Trace(w.Engine(m.Name(), m.Stats().Slots))
		}
	}
}
