package dm

import "fmt"

// A need is how much of a mapped device beneath a table one of its rows uses.
type need struct {
	row int // from 1
	of  *Mapped
	end int64
}

// needs returns what t needs of mapped devices.
func (t *Table) needs() (all []need) {
	for i := range t.rows {
		for _, s := range t.rows[i].target.Under() {
			if h, ok := s.Dev.(*Handle); ok {
				all = append(all, need{i + 1, h.Mapped, s.Off + s.Len})
			}
		}
	}
	return all
}

// misfit is recheck in the section of the swap, where no device beneath can change:
// a device that was reloaded since then may no longer fit t. Called with graph.mu
// held.
func (t *Table) misfit(needs []need) error {
	for _, n := range needs {
		size, block := int64(0), 0
		if live := n.of.live.Load(); live != nil {
			size, block = live.Size(), live.block
		}
		switch {
		case n.end > size:
			return fmt.Errorf("table row %d: device %q has shrunk to %d sectors and the row needs %d",
				n.row, n.of.name, size>>sectorShift, n.end>>sectorShift)
		case block > t.block:
			return fmt.Errorf("table row %d: device %q now has blocks of %d bytes, the table was built for %d",
				n.row, n.of.name, block, t.block)
		}
	}
	return nil
}
