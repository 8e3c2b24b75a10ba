package luks

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
)

// The binary header of LUKS2, 4096 bytes, big endian; its JSON follows.
const (
	binarySize  = 4096
	minHdrSize  = 16 << 10
	maxHdrSize  = 4 << 20
	offVersion  = 6
	offSize     = 8
	offEpoch    = 16
	offLabel    = 24 // 48 bytes
	offAlg      = 72 // 32
	offSalt     = 104
	lenSalt     = 64
	offUUID     = 168
	offSubsys   = 208 // 48
	offOffset   = 256
	offChecksum = 448
	lenChecksum = 64
)

// checksums of a header, by name. cryptsetup writes sha256.
var checksums = map[string]func() hash.Hash{"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}

// read2 reads both copies and takes the newer good one; the first if they are
// equally new.
func read2(r io.ReaderAt, size int64, detached bool) (*Header, error) {
	first, err1 := readCopy(r, size, 0, detached)
	var second *Header
	var err2 error
	at := int64(0)
	if err1 == nil || first != nil {
		// The size in a damaged copy is only where to look first.
		at = first.Size
		second, err2 = readCopy(r, size, at, detached)
	}
	if (second == nil || err2 != nil) && err1 != nil {
		for try := int64(minHdrSize); try <= maxHdrSize && try < size; try *= 2 {
			h, err := readCopy(r, size, try, detached)
			if err == nil {
				second, err2, at = h, nil, try
				break
			}
			if at == 0 && !errors.Is(err, ErrNotLUKS) {
				err2, at = err, try
			}
		}
	}
	if at == 0 && errors.Is(err1, ErrNotLUKS) {
		return nil, ErrNotLUKS
	}
	if err1 != nil && (err2 != nil || second == nil) {
		if err2 == nil {
			err2 = ErrNotLUKS
		}
		return nil, fmt.Errorf("both copies of the header are damaged: the first: %w; the second: %w", err1, err2)
	}
	copies := []Copy{{Offset: 0, Err: err1}, {Offset: at, Err: err2}}
	use := 0
	if err1 == nil {
		copies[0].Epoch = first.Epoch
	}
	if err2 == nil {
		copies[1].Epoch = second.Epoch
		if err1 != nil || second.Epoch > first.Epoch {
			use = 1
		}
	}
	copies[use].Used = true
	h := []*Header{first, second}[use]
	h.Copies = copies
	for i, c := range []*Header{first, second} {
		if copies[i].Err == nil {
			h.salts[i] = c.salts[i]
		}
	}
	return h, nil
}

// readCopy reads the copy at byte at: the first at 0, else the second. A header
// that comes with an error only has its Size.
func readCopy(r io.ReaderAt, size, at int64, detached bool) (*Header, error) {
	bin := make([]byte, binarySize)
	if at > size-binarySize {
		return nil, fmt.Errorf("%w at byte %d: the device has %d", ErrNotLUKS, at, size)
	}
	if err := readFull(r, bin, at); err != nil {
		return nil, err
	}
	magic := magic1st
	if at > 0 {
		magic = magic2nd
	}
	if [6]byte(bin[:6]) != magic {
		return nil, fmt.Errorf("%w at byte %d: the magic is another", ErrNotLUKS, at)
	}
	be := binary.BigEndian
	if v := be.Uint16(bin[offVersion:]); v != 2 {
		return nil, fmt.Errorf("version %d at byte %d is not known", v, at)
	}
	n := be.Uint64(bin[offSize:])
	if n < minHdrSize || n > maxHdrSize || n&(n-1) != 0 {
		return nil, fmt.Errorf("hdr_size: %d is not a power of two from %d to %d", n, minHdrSize, maxHdrSize)
	}
	only := &Header{Size: int64(n)}
	if at > 0 && only.Size != at {
		return nil, fmt.Errorf("hdr_size: %d, and the second copy is at byte %d", n, at)
	}
	if only.Size > size-at {
		return only, fmt.Errorf("hdr_size: %d at byte %d of a device of %d", n, at, size)
	}
	if o := be.Uint64(bin[offOffset:]); o != uint64(at) {
		return only, fmt.Errorf("hdr_offset: %d, and this copy is at byte %d", o, at)
	}
	all := append(bin, make([]byte, only.Size-binarySize)...)
	if err := readFull(r, all[binarySize:], at+binarySize); err != nil {
		return only, err
	}
	h, err := parse2(all, detached)
	if err != nil {
		return only, err
	}
	return h, nil
}

func readFull(r io.ReaderAt, b []byte, at int64) error {
	if n, err := r.ReadAt(b, at); n < len(b) {
		return &readError{fmt.Errorf("read %d bytes at byte %d: %w", len(b), at, err)}
	}
	return nil
}

// A readError is of the device, not of what it holds.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// parse2 parses one copy, of which magic, version, size and offset are checked.
func parse2(all []byte, detached bool) (*Header, error) {
	h := &Header{Version: 2, Size: int64(len(all)), Epoch: binary.BigEndian.Uint64(all[offEpoch:])}
	alg, err := cString(all[offAlg:][:32], "checksum_alg")
	if err != nil {
		return nil, err
	}
	h.checksum = alg
	newHash := checksums[alg]
	if newHash == nil {
		return nil, fmt.Errorf("checksum_alg: %q is not known", alg)
	}
	i := 0
	if binary.BigEndian.Uint64(all[offOffset:]) != 0 {
		i = 1
	}
	h.salts[i] = [lenSalt]byte(all[offSalt:])
	if !checksumFits(all, newHash()) {
		return nil, errors.New("csum: the checksum does not fit")
	}
	for _, f := range []struct {
		to   *string
		at   int
		n    int
		name string
	}{{&h.Label, offLabel, 48, "label"}, {&h.UUID, offUUID, 40, "uuid"}, {&h.Subsystem, offSubsys, 48, "subsystem"}} {
		if *f.to, err = cString(all[f.at:][:f.n], f.name); err != nil {
			return nil, err
		}
	}
	text, err := jsonText(all[binarySize:])
	if err == nil {
		h.meta, err = parseJSON(text)
	}
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return h, h.readMetadata(detached)
}

// checksumFits reports whether a copy has its checksum.
func checksumFits(all []byte, h hash.Hash) bool {
	want := checksum(all, h)
	return bytes.Equal(want[:], all[offChecksum:][:lenChecksum])
}

// checksum computes the checksum over a copy with zeroes in its place.
func checksum(all []byte, h hash.Hash) (sum [lenChecksum]byte) {
	h.Write(all[:offChecksum])
	h.Write(sum[:])
	h.Write(all[offChecksum+lenChecksum:])
	h.Sum(sum[:0])
	return sum
}

// cString returns the text before the first zero byte; there must be one.
func cString(b []byte, name string) (string, error) {
	n := bytes.IndexByte(b, 0)
	if n < 0 {
		return "", fmt.Errorf("%s: has no end within its %d bytes", name, len(b))
	}
	if i := slices.IndexFunc(b[:n], func(c byte) bool { return c < ' ' || c == 0x7f }); i >= 0 {
		return "", fmt.Errorf("%s: byte %d is a control character", name, i)
	}
	return string(b[:n]), nil
}

// jsonText returns the text in a JSON area: a zero byte ends it, and only more of
// them follow.
func jsonText(area []byte) ([]byte, error) {
	n := bytes.IndexByte(area, 0)
	if n < 0 {
		return nil, errors.New("has no end within its area")
	}
	for i, c := range area[n:] {
		if c != 0 {
			return nil, fmt.Errorf("byte %d behind its end is not zero", n+i)
		}
	}
	return area[:n], nil
}
