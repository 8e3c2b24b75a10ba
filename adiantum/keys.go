package adiantum

import (
	"encoding/binary"
	"unsafe"

	"keyway/internal/aes"
	"keyway/internal/secret"
)

const (
	nhUnit   = 16   // bytes that NH takes at once
	nhPasses = 4    // sums that NH makes, each with the key one unit further
	nhChunk  = 1024 // bytes that NH makes one value of

	nhKeyUnits = nhChunk/nhUnit + nhPasses - 1
)

// keys is what a key expands to. It lies in locked memory and holds no pointers.
// The assembly knows its layout by offsets (see _asm).
type keys struct {
	stream [8]uint32 // of XChaCha
	m      [2]uint64 // the point at which the message's polynomial is evaluated
	t      headerKey
	nh     [nhKeyUnits * 4]uint32
	pairs  [2][nhKeyUnits][2]uint64 // see pair
}

// expand derives everything from key: section 2 of the paper calls the key
// K_S and the rest, in the order of the stream that belongs to an empty nonce,
// K_E || K_T || K_M || K_N.
func (c *Cipher) expand(key []byte) error {
	const derived = aes.BlockSize*2 + 16 + 16 + nhKeyUnits*nhUnit
	const padded = (derived + chachaBlock - 1) / chachaBlock * chachaBlock
	const size = int(unsafe.Sizeof(keys{}))
	mem, err := secret.New(size + padded + 32)
	if err != nil {
		return err
	}
	b, last := mem.Bytes()[size:][:padded], mem.Bytes()[size+padded:]
	k := (*keys)(unsafe.Pointer(&mem.Bytes()[0]))
	for i := range k.stream {
		k.stream[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	sub := (*[8]uint32)(unsafe.Pointer(&last[0]))   // not on the stack
	hchacha(sub, &k.stream, &[16]byte{1}, c.rounds) // an empty nonce, padded
	for i := 0; i < padded; i += chachaBlock {
		chachaXOR(b[i:], b[i:], sub, uint32(i/chachaBlock), 0, c.rounds)
	}
	secret.Wipe(last)

	block, err := aes.NewBlocks(b[:32])
	if err != nil {
		mem.Wipe()
		return err
	}
	k.t.set(clamped(b[32:]), c.unit-blockLen)
	k.m = clamped(b[48:])
	for i := range k.nh {
		k.nh[i] = binary.LittleEndian.Uint32(b[64+4*i:])
	}
	secret.Wipe(b)
	if d := distance(c.im); d > 0 {
		k.pair(d)
	}
	c.mem, c.keys, c.block = mem, k, block
	return nil
}

// pair arranges the key of NH for vectors. They hold the low halves of units i and
// i+d of a message in one register and the high halves in another, since NH
// multiplies the words of one by those of the other; so the key is needed as
// pairs of the low halves, pairs[0], and of the high halves, pairs[1].
func (k *keys) pair(d int) {
	half := func(i, of int) uint64 {
		w := k.nh[4*i+2*of:]
		return uint64(w[0]) | uint64(w[1])<<32
	}
	for of := range k.pairs {
		for i := range nhKeyUnits - d {
			k.pairs[of][i] = [2]uint64{half(i, of), half(i+d, of)}
		}
	}
}
