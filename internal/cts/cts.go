// Package cts is CBC with ciphertext stealing, variant CS3, over any block cipher
// of 16 bytes: NIST SP 800-38A addendum, and cts(cbc(...)) of the Linux crypto API.
// Ciphertext is as long as plaintext. fscrypt encrypts file names so.
package cts

import "crypto/subtle"

// BlockSize is that of the block cipher, and the least length of a message, in
// bytes.
const BlockSize = 16

// A Block is a key of a block cipher. src is one block, dst the same or disjoint.
type Block interface {
	Encrypt(dst, src []byte)
	Decrypt(dst, src []byte)
}

// Encrypt encrypts src, BlockSize bytes or more, into dst, as long. They are the
// same memory or do not overlap. The last two blocks of the ciphertext have changed
// places, also where the last one is whole; a single block is plain CBC. Shorter
// messages panic: who names things checks their length.
func Encrypt(b Block, dst, src []byte, iv *[BlockSize]byte) {
	check(dst, src)
	x := new([2 * BlockSize]byte) // one allocation: b is an interface
	chain, last := x[:BlockSize], x[BlockSize:]
	copy(chain, iv[:])
	head, tail := split(len(src))
	for i := 0; i < head; i += BlockSize {
		subtle.XORBytes(chain, chain, src[i:i+BlockSize])
		b.Encrypt(chain, chain)
		copy(dst[i:], chain)
	}
	if tail == 0 {
		return
	}
	// dst may be src: the tail is read before the stolen block takes its place.
	copy(last, src[head:])
	subtle.XORBytes(last, last, chain)
	b.Encrypt(last, last)
	copy(dst[head:], chain[:tail])
	copy(dst[head-BlockSize:], last)
}

// Decrypt is the inverse of Encrypt, under the same rules.
func Decrypt(b Block, dst, src []byte, iv *[BlockSize]byte) {
	check(dst, src)
	x := new([3 * BlockSize]byte)
	chain, this, last := x[:BlockSize], x[BlockSize:2*BlockSize], x[2*BlockSize:]
	copy(chain, iv[:])
	head, tail := split(len(src))
	if tail > 0 {
		head -= BlockSize
	}
	for i := 0; i < head; i += BlockSize {
		copy(this, src[i:])
		b.Decrypt(last, this)
		subtle.XORBytes(dst[i:], last, chain)
		copy(chain, this)
	}
	if tail == 0 {
		return
	}
	// The block before the tail is the last of CBC, of the padded tail; what the
	// padding was tells the bytes that were stolen from the one before it.
	b.Decrypt(last, src[head:head+BlockSize])
	copy(this, last)
	copy(this, src[head+BlockSize:])
	subtle.XORBytes(dst[head+BlockSize:], last[:tail], this[:tail])
	b.Decrypt(this, this)
	subtle.XORBytes(dst[head:], this, chain)
}

func check(dst, src []byte) {
	if len(src) < BlockSize || len(dst) < len(src) {
		panic("cts: input shorter than a block, or output than input")
	}
}

// split cuts n bytes: a head of whole blocks that plain CBC takes, and a tail of 1
// to 16 bytes, or none if there is but one block.
func split(n int) (head, tail int) {
	if n == BlockSize {
		return n, 0
	}
	head = (n - 1) / BlockSize * BlockSize
	return head, n - head
}
