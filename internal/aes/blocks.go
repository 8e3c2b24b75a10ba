package aes

import (
	"fmt"
	"unsafe"

	"keyway/internal/secret"
)

// Blocks is a key for single blocks: what makes the number of a data unit an
// initialisation vector, or the one block that a wide-block cipher encrypts.
// Encrypt and Decrypt may be called from many goroutines at once; none may be
// running when Wipe is called, or follow it.
type Blocks struct {
	mem *secret.Buffer
	rk  []State // in mem
}

// NewBlocks expands key, 16, 24 or 32 bytes, into locked memory.
func NewBlocks(key []byte) (*Blocks, error) {
	switch len(key) {
	case 16, 24, 32:
	default:
		return nil, fmt.Errorf("aes: key of %d bytes: must be 16, 24 or 32", len(key))
	}
	n := Rounds(len(key)) + 1
	const size = int(unsafe.Sizeof(State{}))
	mem, err := secret.New(n*size + n*BlockSize)
	if err != nil {
		return nil, fmt.Errorf("aes: %w", err)
	}
	rk := unsafe.Slice((*State)(unsafe.Pointer(&mem.Bytes()[0])), n)
	w := mem.Bytes()[n*size:]
	Expand(w, key)
	SliceKeys(rk, w)
	wipe(w)
	return &Blocks{mem, rk}, nil
}

// Encrypt encrypts src, whole blocks, each on its own, into dst, at least as
// long. They are the same memory or do not overlap.
//
// Hot: no allocation.
func (b *Blocks) Encrypt(dst, src []byte) { b.each(dst, src, false) }

// Decrypt is the inverse of Encrypt.
//
// Hot: no allocation.
func (b *Blocks) Decrypt(dst, src []byte) { b.each(dst, src, true) }

func (b *Blocks) each(dst, src []byte, decrypt bool) {
	if len(src)%BlockSize != 0 || len(dst) < len(src) {
		panic("aes: input is not whole blocks, or output is shorter")
	}
	var q State
	var buf [StateSize]byte
	for len(src) > 0 {
		n := copy(buf[:], src)
		q.Slice(&buf)
		if decrypt {
			q.Decrypt(b.rk)
		} else {
			q.Encrypt(b.rk)
		}
		q.Unslice(&buf)
		copy(dst, buf[:n])
		dst, src = dst[n:], src[n:]
	}
	wipe(buf[:])
	q.Wipe()
}

// Wipe erases the round keys. It may be called again.
func (b *Blocks) Wipe() {
	b.mem.Wipe()
	b.rk = nil
}
