package xts

import "keyway/internal/secret"

// EncryptStealing encrypts src, one data unit of any length from 16 bytes to the
// cipher's data unit size, into dst, at least as long: the same memory or
// disjoint. tweak is the number of the data unit, low half first. Breaking these
// rules panics.
//
// A length that is not a whole number of blocks steals ciphertext (IEEE 1619-2018,
// 5.3.2): the last whole block gives its end to fill up the partial one. No block
// device has such data units. This is here for test vectors and to read what
// others wrote; it allocates, and costs two data units of full size.
func (c *Cipher) EncryptStealing(dst, src []byte, tweak [2]uint64) {
	c.steal(dst, src, func(buf []byte) { c.Encrypt(buf, buf, tweak) }, false)
}

// DecryptStealing is the inverse of EncryptStealing (IEEE 1619-2018, 5.4.2), under
// the same rules.
func (c *Cipher) DecryptStealing(dst, src []byte, tweak [2]uint64) {
	c.steal(dst, src, func(buf []byte) { c.Decrypt(buf, buf, tweak) }, true)
}

// steal does its AES by runs of one data unit of full size, of which only the
// blocks that are wanted are filled: block j has the same tweak in all of them. So
// vectors of any length test the implementation that serves full data units.
func (c *Cipher) steal(dst, src []byte, crypt func(unit []byte), decrypt bool) {
	n := len(src)
	if n < blockLen || n > c.unit {
		panic("xts: a data unit with ciphertext stealing has 16 bytes to the size that the cipher was made for")
	}
	if len(dst) < n {
		panic("xts: output is shorter than input")
	}
	buf := make([]byte, c.unit)
	defer secret.Wipe(buf)
	part := n % blockLen
	if part == 0 {
		copy(buf, src)
		crypt(buf)
		copy(dst, buf[:n])
		return
	}

	// The last whole block passes AES first, under its own tweak when encrypting
	// and under that of the partial block when decrypting; the partial block,
	// filled up from its result, passes second, under the other of the two.
	whole := n - part
	first, second := whole-blockLen, whole
	if decrypt {
		first, second = second, first
	}
	copy(buf, src[:whole-blockLen])
	copy(buf[first:], src[whole-blockLen:whole])
	crypt(buf)
	var stolen, filled [blockLen]byte
	copy(stolen[:], buf[first:])
	copy(filled[:], src[whole:])
	copy(filled[part:], stolen[part:])
	copy(dst, buf[:whole-blockLen])

	clear(buf)
	copy(buf[second:], filled[:])
	crypt(buf)
	copy(dst[whole-blockLen:], buf[second:][:blockLen])
	copy(dst[whole:], stolen[:part])
	secret.Wipe(stolen[:])
	secret.Wipe(filled[:])
}
