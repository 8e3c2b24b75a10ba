package luks

import (
	"encoding/binary"
	"fmt"
)

// pad fills the fixed fields of a LUKS1 header: text, and zeroes behind it.
func pad(b []byte, s string) {
	clear(b)
	copy(b, s)
}

// encodeSlot1 writes one of the eight keyslots of a raw header; nil: not in use.
// What is not in use keeps the place of its material, as readers demand.
func encodeSlot1(raw []byte, id int, k *Keyslot) {
	b := raw[slot1At+id*slot1Bytes:][:slot1Bytes]
	be := binary.BigEndian
	if k == nil {
		be.PutUint32(b, inactive1)
		clear(b[4:40])
		return
	}
	be.PutUint32(b, active1)
	be.PutUint32(b[4:], uint32(k.KDF.Iterations))
	copy(b[8:40], k.KDF.Salt)
	be.PutUint32(b[40:], uint32(k.Area.Offset/sectorBytes))
	be.PutUint32(b[44:], stripes)
}

// put1 writes a raw LUKS1 header, of which one keyslot has changed: that is 48 bytes
// within one sector, or in two of them (number 6 lies across the first two; there
// the state comes last if it becomes active, and first if not).
func (e *Editor) put1(raw []byte, active bool) error {
	next, err := parse1(raw)
	if err != nil {
		return fmt.Errorf("the header that this makes would be refused: %w", err)
	}
	next.policy, next.place = e.h.policy, e.h.place
	if err := next.checkAreas(next.place.size); err != nil {
		return err
	}
	if err := next.allow(next.place.data); err != nil {
		return err
	}
	if err := e.writeSectors1(raw, active); err != nil {
		e.broken = err
		return err
	}
	e.h = next
	return nil
}

// writeSectors1 writes the sectors that differ, the later one first or last.
func (e *Editor) writeSectors1(raw []byte, laterFirst bool) error {
	// The header ends within its second sector, whose rest is nobody's.
	b := make([]byte, 2*sectorBytes)
	if err := readFull(e.m, b, 0); err != nil {
		return err
	}
	order := []int{0, sectorBytes}
	if laterFirst {
		order = []int{sectorBytes, 0}
	}
	for _, at := range order {
		sector := b[at:][:sectorBytes]
		old := string(sector)
		copy(sector, raw[at:])
		if string(sector) == old {
			continue
		}
		if err := writeFull(e.m, sector, int64(at)); err != nil {
			return err
		}
		if err := durable(e.m); err != nil {
			return err
		}
	}
	return nil
}

// home1 is where the material of a keyslot of LUKS1 lies, or has its place.
func (h *Header) home1(id int) int64 {
	return int64(binary.BigEndian.Uint32(h.luks1.raw[slot1At+id*slot1Bytes+40:])) * sectorBytes
}
