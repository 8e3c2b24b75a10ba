package luks

import (
	"encoding/binary"
	"fmt"
)

// Repair rewrites a copy of a LUKS2 header that is damaged, or older than the other,
// from that, and returns its number: 1 or 2; 0 if there is nothing to repair. It
// changes nothing else, so that it is allowed with requirements that nobody here
// knows, too. Every change of a header does it as well, if Edit lets it.
//
// What lies in the place of the first copy may belong to somebody else by now: a
// file system that was made over a volume destroys only that. Look before.
func Repair(m Medium, size int64, o Options) (int, error) {
	h, err := Read(m, size, o)
	if err != nil {
		return 0, err
	}
	if h.Version == 1 || h.Copies[0].Err == nil && h.Copies[1].Err == nil && h.Copies[0].Epoch == h.Copies[1].Epoch {
		return 0, nil
	}
	good, bad := 0, 1
	if h.Copies[1].Used {
		good, bad = 1, 0
	}
	b := make([]byte, h.Size)
	if err := readFull(m, b, int64(good)*h.Size); err != nil {
		return 0, fmt.Errorf("luks: repair: %w", err)
	}
	magic := [][6]byte{magic1st, magic2nd}[bad]
	copy(b, magic[:])
	binary.BigEndian.PutUint64(b[offOffset:], uint64(bad)*uint64(h.Size))
	if h.salts[bad] == [lenSalt]byte{} {
		salt, err := randomBytes(lenSalt)
		if err != nil {
			return 0, fmt.Errorf("luks: repair: %w", err)
		}
		h.salts[bad] = [lenSalt]byte(salt)
	}
	copy(b[offSalt:], h.salts[bad][:])
	sum := checksum(b, checksums[h.checksum]())
	copy(b[offChecksum:], sum[:])
	err = writeFull(m, b, int64(bad)*h.Size)
	if err == nil {
		err = durable(m)
	}
	if err != nil {
		return 0, fmt.Errorf("luks: repair: header copy %d: %w", bad+1, err)
	}
	return bad + 1, nil
}
