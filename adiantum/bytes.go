package adiantum

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"keyway/internal/arena"
)

// MinBytes is the least length of a message for Bytes.
const MinBytes = blockLen

// Bytes is a key for messages of any length from MinBytes bytes, such as file
// names: Adiantum is defined for them, and only the data units of Cipher are whole
// blocks. It is portable, and far slower than a Cipher. The stream cipher is
// XChaCha12. Encrypt and Decrypt may be called from many goroutines at once; none
// may be running when Wipe is called, or follow it.
type Bytes struct{ c *Cipher }

// NewBytes expands key, 32 bytes, into locked memory. The key stays the caller's.
func NewBytes(key []byte) (*Bytes, error) {
	c, err := open(generic, key, blockLen, 12)
	if err != nil {
		return nil, err
	}
	return &Bytes{c}, nil
}

// Encrypt encrypts src, MinBytes to MaxUnit bytes, into dst, at least as long. They
// are the same memory or do not overlap. tweak is 32 bytes in the order of their
// value, the lowest 64 bits first. Breaking these rules, or using a wiped key,
// panics.
func (b *Bytes) Encrypt(dst, src []byte, tweak [4]uint64) { b.crypt(dst, src, tweak, false) }

// Decrypt is the inverse of Encrypt, under the same rules.
func (b *Bytes) Decrypt(dst, src []byte, tweak [4]uint64) { b.crypt(dst, src, tweak, true) }

// crypt does what Cipher.crypt does, for one message, whose left part is padded for
// the hash.
func (b *Bytes) crypt(dst, src []byte, tweak [4]uint64, decrypt bool) {
	k := b.c.keys
	if k == nil {
		panic("adiantum: bytes used after Wipe")
	}
	if len(src) < MinBytes || len(src) > MaxUnit || len(dst) < len(src) {
		panic(fmt.Sprintf("adiantum: message of %d bytes into %d: %d to %d can be", len(src), len(dst), MinBytes, MaxUnit))
	}
	left := len(src) - blockLen
	padded := (left + nhUnit - 1) &^ (nhUnit - 1)
	buf := arena.Get(workSize + padded)
	w, text := (*work)(unsafe.Pointer(&buf.Bytes()[0])), buf.Bytes()[workSize:][:padded]
	copy(text, src[:left])
	clear(text[left:])

	w.header[0][0], w.header[0][1] = k.t.valueOf(left, tweak).low()
	w.sums[0][0], w.sums[0][1] = k.nhPoly1305(text)
	lo, hi := w.hash(0)
	lo, carry := bits.Add64(lo, binary.LittleEndian.Uint64(src[left:]), 0)
	hi, _ = bits.Add64(hi, binary.LittleEndian.Uint64(src[left+8:]), carry)
	middle := w.middle[0][:]
	binary.LittleEndian.PutUint64(middle, lo)
	binary.LittleEndian.PutUint64(middle[8:], hi)

	if !decrypt {
		b.c.block.Encrypt(middle, middle)
	}
	hchacha(&w.sub[0], &k.stream, &w.middle[0], b.c.rounds)
	if decrypt {
		b.c.block.Decrypt(middle, middle)
	}
	for i := 0; i < padded; i += chachaBlock {
		block := text[i:min(i+chachaBlock, padded)]
		chachaXOR(block, block, &w.sub[0], uint32(i/chachaBlock), 1, b.c.rounds)
	}
	clear(text[left:])

	copy(dst, text[:left])
	w.sums[0][0], w.sums[0][1] = k.nhPoly1305(text)
	lo, hi = w.hash(0)
	lo, borrow := bits.Sub64(binary.LittleEndian.Uint64(middle), lo, 0)
	hi, _ = bits.Sub64(binary.LittleEndian.Uint64(middle[8:]), hi, borrow)
	binary.LittleEndian.PutUint64(dst[left:], lo)
	binary.LittleEndian.PutUint64(dst[left+8:], hi)
	w.wipe(1, 1)
	clear(text)
	buf.Put()
}

// Wipe erases everything that holds the key. It may be called again, and on nil.
func (b *Bytes) Wipe() {
	if b != nil {
		b.c.Wipe()
	}
}

// valueOf is value for a message of n bytes.
func (k *headerKey) valueOf(n int, tweak [4]uint64) element {
	h := element{8 * uint64(n), 0, 1}.times(k.r[0], k.r[1])
	h = h.plus(element{tweak[0], tweak[1], 1}).times(k.r[0], k.r[1])
	return h.plus(element{tweak[2], tweak[3], 1}).times(k.r[0], k.r[1])
}
