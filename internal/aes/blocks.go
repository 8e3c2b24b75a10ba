package aes

import (
	"fmt"
	"unsafe"

	"keyway/internal/secret"
)

// maxBlocks is the number of blocks in a call of the assembly, which the runtime
// cannot preempt: 64 KiB take about 20 µs with the slowest AES instructions.
const maxBlocks = 4096

// Blocks is a key for single blocks: what makes the number of a data unit an
// initialisation vector, or the one block that a wide-block cipher encrypts.
// Several blocks in one call, eight or more, go through the AES instructions at
// once. Encrypt and Decrypt may be called from many goroutines at once; none may
// be running when Wipe is called, or follow it.
type Blocks struct {
	mem      *secret.Buffer
	enc, dec *byte // round keys in order of use, in mem; nil without AES instructions
	rounds   int
	rk       []State // bitsliced round keys, in mem; nil with AES instructions
}

// NewBlocks expands key, 16, 24 or 32 bytes, into locked memory.
func NewBlocks(key []byte) (*Blocks, error) { return newBlocks(key, hardware) }

func newBlocks(key []byte, hardware bool) (*Blocks, error) {
	switch len(key) {
	case 16, 24, 32:
	default:
		return nil, fmt.Errorf("aes: key of %d bytes: must be 16, 24 or 32", len(key))
	}
	open := newSliced
	if hardware {
		open = newInstructions
	}
	b, err := open(key)
	if err != nil {
		return nil, fmt.Errorf("aes: %w", err)
	}
	return b, nil
}

func newInstructions(key []byte) (*Blocks, error) {
	n, rounds := ScheduleSize(len(key)), Rounds(len(key))
	mem, err := secret.New(2 * n)
	if err != nil {
		return nil, err
	}
	m := mem.Bytes()
	b := &Blocks{mem: mem, enc: &m[0], dec: &m[n], rounds: rounds}
	expandKey(b.enc, &key[0], rounds)
	invertKey(b.dec, b.enc, rounds)
	return b, nil
}

func newSliced(key []byte) (*Blocks, error) {
	n := Rounds(len(key)) + 1
	const size = int(unsafe.Sizeof(State{}))
	mem, err := secret.New(n*size + n*BlockSize)
	if err != nil {
		return nil, err
	}
	rk := unsafe.Slice((*State)(unsafe.Pointer(&mem.Bytes()[0])), n)
	w := mem.Bytes()[n*size:]
	expandGeneric(w, key)
	SliceKeys(rk, w)
	wipe(w)
	return &Blocks{mem: mem, rk: rk}, nil
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
	if b.mem == nil {
		panic("aes: blocks used after Wipe")
	}
	if b.rk != nil {
		b.sliced(dst, src, decrypt)
		return
	}
	for len(src) > 0 {
		n := min(len(src)/BlockSize, maxBlocks)
		if decrypt {
			decryptBlocks(b.dec, b.rounds, &dst[0], &src[0], n)
		} else {
			encryptBlocks(b.enc, b.rounds, &dst[0], &src[0], n)
		}
		dst, src = dst[n*BlockSize:], src[n*BlockSize:]
	}
}

func (b *Blocks) sliced(dst, src []byte, decrypt bool) {
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
	*b = Blocks{}
}
