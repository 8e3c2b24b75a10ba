// Package camellia is the block cipher Camellia (RFC 3713) for media that exist.
//
// It is bitsliced portable Go in constant time, eight blocks at once: the S-boxes are
// one circuit, that of AES, between linear maps. A call with fewer blocks costs as
// much as one with eight.
package camellia

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"keyway/internal/secret"
)

const (
	BlockSize = 16 // bytes

	atOnce = 8 // blocks
)

// Blocks is a key for blocks each on its own. Encrypt and Decrypt may be called from
// many goroutines at once; none may be running when Wipe is called, or follow it.
type Blocks struct {
	mem *secret.Buffer
	rk  []planes // in mem: see schedule.subkeys for their order
}

// NewBlocks expands key, 16, 24 or 32 bytes, which stays the caller's, into locked
// memory.
func NewBlocks(key []byte) (*Blocks, error) {
	switch len(key) {
	case 16, 24, 32:
	default:
		return nil, fmt.Errorf("camellia: key of %d bytes: must be 16, 24 or 32", len(key))
	}
	n := most
	if len(key) == 16 {
		n = fewest
	}
	const one = int(unsafe.Sizeof(planes{}))
	mem, err := secret.New(n*one + int(unsafe.Sizeof(schedule{})))
	if err != nil {
		return nil, fmt.Errorf("camellia: %w", err)
	}
	b := &Blocks{mem, unsafe.Slice((*planes)(unsafe.Pointer(&mem.Bytes()[0])), n)}
	room := mem.Bytes()[n*one:]
	secret.Do(func() { (*schedule)(unsafe.Pointer(&room[0])).expand(b.rk, key) })
	secret.Wipe(room)
	return b, nil
}

// Encrypt encrypts src, whole blocks, each on its own, into dst, at least as long.
// They are the same memory or do not overlap.
//
// Hot: no allocation.
func (b *Blocks) Encrypt(dst, src []byte) { b.each(dst, src, false) }

// Decrypt is the inverse of Encrypt.
//
// Hot: no allocation.
func (b *Blocks) Decrypt(dst, src []byte) { b.each(dst, src, true) }

func (b *Blocks) each(dst, src []byte, decrypt bool) {
	if len(src)%BlockSize != 0 || len(dst) < len(src) {
		panic("camellia: input is not whole blocks, or output is shorter")
	}
	if b.rk == nil {
		panic("camellia: blocks used after Wipe")
	}
	var left, right planes
	for len(src) > 0 {
		n := min(len(src), atOnce*BlockSize)
		for k := 0; k < n/BlockSize; k++ {
			left[k] = binary.BigEndian.Uint64(src[k*BlockSize:])
			right[k] = binary.BigEndian.Uint64(src[k*BlockSize+8:])
		}
		left.transpose()
		right.transpose()
		crypt(&left, &right, b.rk, decrypt)
		left.transpose()
		right.transpose()
		for k := 0; k < n/BlockSize; k++ {
			binary.BigEndian.PutUint64(dst[k*BlockSize:], right[k])
			binary.BigEndian.PutUint64(dst[k*BlockSize+8:], left[k])
		}
		dst, src = dst[n:], src[n:]
	}
	left.wipe()
	right.wipe()
}

// Wipe erases the round keys. It may be called again.
func (b *Blocks) Wipe() {
	b.mem.Wipe()
	b.rk = nil
}
