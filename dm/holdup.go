package dm

import (
	"fmt"
	"strings"

	"keyway/internal/plural"
)

// holdup says where the requests are that keep m from draining: the lowest
// devices that have some, a suspended one with the requests that wait there.
func (m *Mapped) holdup() string {
	found := m.holdups(map[*Mapped]bool{})
	if len(found) == 0 {
		return fmt.Sprintf("%s in progress", plural.Of(m.gate.Inside(), "request"))
	}
	return strings.Join(found, ", ")
}

func (m *Mapped) holdups(seen map[*Mapped]bool) []string {
	var found []string
	for _, s := range m.Under() {
		h, ok := s.Dev.(*Handle)
		if !ok || seen[h.Mapped] {
			continue
		}
		seen[h.Mapped] = true
		d := h.Mapped
		below := d.holdups(seen)
		switch inside, waiting := d.gate.Inside(), d.gate.Waiting(); {
		case d.suspended.Load() && waiting > 0:
			found = append(found, fmt.Sprintf("device %q is suspended, with %s waiting there", d.Name(), plural.Of(waiting, "request")))
		case len(below) > 0:
			found = append(found, below...)
		case inside > 0:
			found = append(found, fmt.Sprintf("%s in progress in device %q", plural.Of(inside, "request"), d.Name()))
		}
	}
	return found
}
