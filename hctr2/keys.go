package hctr2

import (
	"encoding/binary"
	"unsafe"

	"keyway/internal/aes"
	"keyway/internal/secret"
)

const powers = 16 // of the hash key: blocks that vaes256 hashes at once

// keys is what a key expands to. It lies in locked memory and holds no pointers. The
// assembly knows its layout by offsets (see _asm).
type keys struct {
	// hash are the powers of the hash key as dot makes them, the first power last, so
	// that n blocks are multiplied by the last n of them in order.
	hash   [powers]element
	stream element // added to what the stream starts with
	rounds [(aes.MaxRounds + 1) * blockLen]byte
}

// h is the hash key.
func (k *keys) h() *element { return &k.hash[powers-1] }

// expand derives everything from key: the hash key is the encryption of the block
// 0, what is added to the start of streams that of the block 1.
func (c *Cipher) expand(key []byte) error {
	const size = int(unsafe.Sizeof(keys{}))
	const wide = int(unsafe.Sizeof(aes.Wide{}))
	n := 0
	if c.im == generic {
		n = aes.Rounds(len(key)) + 1
	}
	mem, err := secret.New(size + n*wide + 2*blockLen)
	if err != nil {
		return err
	}
	block, err := aes.NewBlocks(key)
	if err != nil {
		mem.Wipe()
		return err
	}
	b := mem.Bytes()
	k := (*keys)(unsafe.Pointer(&b[0]))
	aes.Expand(k.rounds[:aes.ScheduleSize(len(key))], key)
	if n > 0 {
		c.wide = unsafe.Slice((*aes.Wide)(unsafe.Pointer(&b[size])), n)
		aes.SliceWideKeys(c.wide, k.rounds[:n*blockLen])
	}
	two := b[size+n*wide:]
	two[blockLen] = 1
	block.Encrypt(two, two)
	read(k.h(), two)
	read(&k.stream, two[blockLen:])
	secret.Wipe(two)
	for i := powers - 2; i >= 0; i-- {
		k.hash[i][0], k.hash[i][1] = dot(&k.hash[i+1], k.h())
	}
	c.mem, c.keys, c.block = mem, k, block
	return nil
}

// read takes an element from its 16 bytes.
//
//go:norace
func read(e *element, b []byte) {
	e[0], e[1] = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
}
