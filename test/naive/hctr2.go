package naive

import (
	"crypto/aes"
	"encoding/binary"
	"math/big"
)

// HCTR2 transforms one text of 16 bytes or more as the paper has it (figure 1,
// sections 3.2 to 3.4). Tweaks may have any length.
//
//go:norace
func HCTR2(key, dst, src, tweak []byte, decrypt bool) {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	schedule := func(i int64) []byte {
		b := little(big.NewInt(i), 16)
		block.Encrypt(b, b)
		return b
	}
	h, l := schedule(0), schedule(1)
	hash := func(text []byte) []byte {
		length := int64(2*8*len(tweak) + 2)
		if len(text)%16 != 0 {
			length++
			text = append(append([]byte(nil), text...), 1)
		}
		all := little(big.NewInt(length), 16)
		for _, part := range [][]byte{tweak, text} {
			all = append(append(all, part...), make([]byte, -len(part)&15)...)
		}
		return Polyval(h, all)
	}
	add := func(a, b []byte) []byte {
		sum := make([]byte, 16)
		for i := range sum {
			sum[i] = a[i] ^ b[i]
		}
		return sum
	}
	first, rest := src[:16], append([]byte(nil), src[16:]...)
	before, after := add(first, hash(rest)), make([]byte, 16)
	if decrypt {
		block.Decrypt(after, before)
	} else {
		block.Encrypt(after, before)
	}
	start := add(add(before, after), l)
	for i := 0; i < len(rest); i += 16 {
		counter := make([]byte, 16)
		binary.LittleEndian.PutUint64(counter, uint64(i/16+1))
		counter = add(counter, start)
		block.Encrypt(counter, counter)
		for j := i; j < min(i+16, len(rest)); j++ {
			rest[j] ^= counter[j-i]
		}
	}
	copy(dst, add(after, hash(rest)))
	copy(dst[16:], rest)
}

// Polyval is the hash of whole blocks, a polynomial evaluated by Horner's rule.
//
//go:norace
func Polyval(h, blocks []byte) []byte {
	sum := make([]byte, 16)
	for i := 0; i < len(blocks); i += 16 {
		for j := range sum {
			sum[j] ^= blocks[i+j]
		}
		sum = polyvalProduct(sum, h)
	}
	return sum
}

// polyvalProduct is a·b·x^-128 modulo x^128 + x^127 + x^126 + x^121 + 1, bit by bit
// of b from the lowest on: what stands so far is divided by x each time. A division
// adds the modulus before, if the lowest bit is set.
//
//go:norace
func polyvalProduct(a, b []byte) []byte {
	le := binary.LittleEndian
	aLow, aHigh := le.Uint64(a), le.Uint64(a[8:])
	var low, high uint64
	for i := range 128 {
		if b[i/8]>>(i%8)&1 != 0 {
			low, high = low^aLow, high^aHigh
		}
		odd := low & 1
		low, high = low>>1|high<<63, high>>1
		if odd != 0 { // 128, 127, 126 and 121, less one
			high ^= 1<<63 | 1<<62 | 1<<61 | 1<<56
		}
	}
	return le.AppendUint64(le.AppendUint64(nil, low), high)
}
