package luks

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// encode2 returns both copies of a LUKS2 header: what h says outside its metadata,
// with meta and the epoch.
func (h *Header) encode2(meta *value, epoch uint64) (copies [2][]byte, err error) {
	text := meta.compact(nil)
	// A zero byte ends it.
	if room := h.Size - binarySize; int64(len(text)) >= room {
		return copies, fmt.Errorf("the metadata takes %d bytes, and the header has room for %d: remove keys or tokens, or format with larger metadata", len(text)+1, room)
	}
	newHash := checksums[h.checksum]
	be := binary.BigEndian
	for i := range copies {
		b := make([]byte, h.Size)
		magic := [][6]byte{magic1st, magic2nd}[i]
		copy(b, magic[:])
		be.PutUint16(b[offVersion:], 2)
		be.PutUint64(b[offSize:], uint64(h.Size))
		be.PutUint64(b[offEpoch:], epoch)
		be.PutUint64(b[offOffset:], uint64(i)*uint64(h.Size))
		for _, f := range []struct {
			text  string
			at, n int
			name  string
		}{
			{h.Label, offLabel, 48, "label"}, {h.checksum, offAlg, 32, "checksum_alg"},
			{h.UUID, offUUID, 40, "uuid"}, {h.Subsystem, offSubsys, 48, "subsystem"},
		} {
			if len(f.text) >= f.n {
				return copies, fmt.Errorf("%s: %d bytes are more than %d", f.name, len(f.text), f.n-1)
			}
			copy(b[f.at:], f.text)
		}
		if h.salts[i] == [lenSalt]byte{} {
			if _, err := rand.Read(h.salts[i][:]); err != nil {
				return copies, err
			}
		}
		copy(b[offSalt:], h.salts[i][:])
		copy(b[binarySize:], text)
		sum := checksum(b, newHash())
		copy(b[offChecksum:], sum[:])
		copies[i] = b
	}
	return copies, nil
}

// next2 returns both copies of a LUKS2 header with other metadata, one epoch on, and
// the header as it reads then. h is the header that is on the medium, but for what
// has changed of its fields outside the metadata.
func (h *Header) next2(meta *value) (copies [2][]byte, next *Header, err error) {
	if h.Epoch == 1<<64-1 {
		return copies, nil, errors.New("the epoch cannot grow any more")
	}
	if copies, err = h.encode2(meta, h.Epoch+1); err != nil {
		return copies, nil, err
	}
	if next, err = h.parseAgain(copies); err != nil {
		return copies, nil, fmt.Errorf("the header that this makes would be refused: %w", err)
	}
	return copies, next, nil
}

// write2 writes both copies. The one that a reader does not use is written first
// and made durable before the other is touched: at each moment one of them is whole,
// old or new.
func (h *Header) write2(m Medium, copies [2][]byte) error {
	order := []int{1, 0}
	if h.Copies[1].Used {
		order = []int{0, 1}
	}
	for n, i := range order {
		err := writeFull(m, copies[i], int64(i)*h.Size)
		if err == nil {
			err = durable(m)
		}
		if err != nil {
			return fmt.Errorf("header copy %d: %w%s", i+1, err, []string{"", "; the other copy has the change"}[n])
		}
	}
	return nil
}

// parseAgain parses what is about to be written, by the rules for what is read.
func (h *Header) parseAgain(copies [2][]byte) (*Header, error) {
	var next *Header
	for i := range copies {
		n, err := parse2(copies[i], h.place.detached)
		if err != nil {
			return nil, err
		}
		n.policy, n.place, n.salts = h.policy, h.place, h.salts
		n.Copies = []Copy{{0, n.Epoch, nil, true}, {h.Size, n.Epoch, nil, false}}
		if err := n.checkAreas(n.place.size); err != nil {
			return nil, err
		}
		if err := n.allow(n.place.data); err != nil {
			return nil, err
		}
		if i == 0 {
			next = n
		}
	}
	return next, nil
}
