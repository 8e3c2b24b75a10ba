package dm

import "keyway/block"

// Identity is what two handles on one mapped device have in common, for targets
// that have to know whether rows of several tables name the same device. It can
// be compared, and lasts as long as a handle is open.
func Identity(dev block.Device) any { return identity(dev) }

// MarksMatter reports whether a target beneath dev adds a key of its own to
// requests that are not marked block.SkipDefaultKey: then bytes that were written
// with the mark mean nothing to those who read without, and the other way round.
//
// Hot: no allocation.
func MarksMatter(dev block.Device) bool {
	h, ok := dev.(*Handle)
	if !ok {
		return false
	}
	t := h.live.Load()
	if t == nil {
		return false
	}
	for i := range t.rows {
		if t.rows[i].typ.Features&MarkedOnly != 0 {
			return true
		}
	}
	for _, d := range t.under {
		if MarksMatter(d) {
			return true
		}
	}
	return false
}

// OpenSpanToRead is OpenSpan for a target that does not change the device, so that
// it may be read-only where the table is not. A device that can only be opened for
// reading is.
func (b *Builder) OpenSpanToRead(name string, start, length int64) (block.Device, error) {
	dev, err := b.env.Open(b.ctx, name, b.readOnly)
	if err != nil && !b.readOnly {
		var again error
		if dev, again = b.env.Open(b.ctx, name, true); again == nil {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	if _, ok := dev.(*Handle); !ok {
		dev = honour(dev, b.env.Fallback())
	}
	b.devices = append(b.devices, dev)
	return dev, checkSpan(name, dev.Info(), start, length)
}
