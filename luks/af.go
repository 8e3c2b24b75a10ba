package luks

import (
	"crypto/rand"
	"encoding/binary"

	"keyway/internal/digest"
)

// afMerge recovers a key of len(dst) bytes from its anti-forensic stripes: src is
// some stripes of len(dst) bytes each, which stays the caller's to wipe. dst and
// src do not overlap. What h keeps of them is the caller's to wipe. LUKS1 on-disk
// format 1.2.3, section 2.4.
func afMerge(dst, src []byte, h *digest.Hash) {
	n := len(dst)
	if len(src) < n || len(src)%n != 0 {
		panic("luks: stripes of another size than the key")
	}
	clear(dst)
	last := len(src) - n
	digest.Do(func() {
		for at := 0; at < last; at += n {
			xor(dst, src[at:at+n])
			diffuse(dst, h)
		}
	})
	xor(dst, src[last:])
}

// afSplit is the inverse: it fills dst, some stripes of len(key) bytes each, with
// random bytes and at the end with what makes key of them.
func afSplit(dst, key []byte, h *digest.Hash) error {
	n := len(key)
	if len(dst) < n || len(dst)%n != 0 {
		panic("luks: stripes of another size than the key")
	}
	last := len(dst) - n
	if _, err := rand.Read(dst[:last]); err != nil {
		return err
	}
	sum := dst[last:]
	clear(sum)
	digest.Do(func() {
		for at := 0; at < last; at += n {
			xor(sum, dst[at:at+n])
			diffuse(sum, h)
		}
	})
	xor(sum, key)
	return nil
}

func xor(dst, src []byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

// diffuse replaces each run of a digest's length in b by the digest of its number
// and itself; the last may be shorter and takes the first bytes of its digest.
func diffuse(b []byte, h *digest.Hash) {
	var number [4]byte
	size := h.Size()
	for i := 0; len(b) > 0; i++ {
		part := b[:min(size, len(b))]
		binary.BigEndian.PutUint32(number[:], uint32(i))
		h.Reset()
		h.Write(number[:])
		h.Write(part)
		copy(part, h.Digest())
		b = b[len(part):]
	}
}
