package sm4xts

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"keyway/internal/secret"
)

// Blocks is an SM4 key for single blocks, for other modes than XTS: portable, in
// constant time, two blocks at once, and far slower than a Cipher. Encrypt and
// Decrypt may be called from many goroutines at once; none may be running when Wipe
// is called, or follow it.
type Blocks struct {
	mem *secret.Buffer
	rk  *schedule // in mem; nil once wiped
}

// NewBlocks expands key, 16 bytes, into locked memory. The key stays the caller's.
func NewBlocks(key []byte) (*Blocks, error) {
	if len(key) != 16 {
		return nil, fmt.Errorf("sm4: key of %d bytes: must be 16", len(key))
	}
	const size = int(unsafe.Sizeof(schedule{}))
	mem, err := secret.New(2*size + 32)
	if err != nil {
		return nil, fmt.Errorf("sm4: %w", err)
	}
	m := mem.Bytes()
	rk, twin := (*schedule)(unsafe.Pointer(&m[0])), (*schedule)(unsafe.Pointer(&m[size]))
	both := m[2*size:]
	copy(both, key)
	copy(both[16:], key)
	expand(rk, twin, both)
	secret.Wipe(m[size:])
	return &Blocks{mem, rk}, nil
}

// Encrypt encrypts src, whole blocks of 16 bytes, each on its own, into dst, at
// least as long. They are the same memory or do not overlap.
//
// Hot: no allocation.
func (b *Blocks) Encrypt(dst, src []byte) { b.each(dst, src, 0, 1) }

// Decrypt is the inverse of Encrypt.
//
// Hot: no allocation.
func (b *Blocks) Decrypt(dst, src []byte) { b.each(dst, src, rounds-1, -1) }

// each takes the round keys from the one numbered first on, step by step.
func (b *Blocks) each(dst, src []byte, first, step int) {
	if len(src)%16 != 0 || len(dst) < len(src) {
		panic("sm4xts: input is not whole blocks, or output is shorter")
	}
	if b.rk == nil {
		panic("sm4xts: blocks used after Wipe")
	}
	for len(src) > 0 {
		n := min(32, len(src))
		second := src[n-16:] // of one block: itself
		var x [4]uint64
		for i := range x {
			x[i] = uint64(binary.BigEndian.Uint32(src[4*i:]))<<32 | uint64(binary.BigEndian.Uint32(second[4*i:]))
		}
		for i, at := 0, first; i < rounds; i, at = i+1, at+step {
			k := uint64(bits.ReverseBytes32(b.rk[at]))
			s := substitute(x[1] ^ x[2] ^ x[3] ^ k<<32 ^ k)
			x[0], x[1], x[2], x[3] = x[1], x[2], x[3], x[0]^uint64(linear(uint32(s>>32)))<<32^uint64(linear(uint32(s)))
		}
		second = dst[n-16:]
		for i := range x {
			binary.BigEndian.PutUint32(second[4*i:], uint32(x[3-i]))
			binary.BigEndian.PutUint32(dst[4*i:], uint32(x[3-i]>>32))
		}
		dst, src = dst[n:], src[n:]
	}
}

// linear is the linear map of a round (GB/T 32907-2016, section 6.2).
func linear(x uint32) uint32 {
	return x ^ bits.RotateLeft32(x, 2) ^ bits.RotateLeft32(x, 10) ^ bits.RotateLeft32(x, 18) ^ bits.RotateLeft32(x, 24)
}

// Wipe erases the round keys. It may be called again.
func (b *Blocks) Wipe() {
	b.mem.Wipe()
	b.rk = nil
}
