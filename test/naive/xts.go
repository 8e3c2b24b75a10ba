// Package naive is the ciphers of data units written to be read, as the second
// opinion of tests: it shares no code with the product. Nobody may optimise it. The
// race detector leaves out what is inside: it works on memory of its caller alone.
//
// This file: AES-XTS, block by block after IEEE 1619-2007, section 5.3.
package naive

import (
	"crypto/aes"
	"encoding/binary"
)

// Encrypt encrypts one data unit in place. key is the data key followed by the
// tweak key (32 or 64 bytes); iv is the number of the unit, as plain64 counts.
// len(unit) is a multiple of 16.
func Encrypt(key []byte, iv uint64, unit []byte) { EncryptIV(key, plain64(iv), unit) }

// Decrypt is the inverse of Encrypt.
func Decrypt(key []byte, iv uint64, unit []byte) { DecryptIV(key, plain64(iv), unit) }

// EncryptIV is Encrypt for a 128-bit unit number, little-endian.
func EncryptIV(key []byte, iv [aes.BlockSize]byte, unit []byte) {
	data, err := aes.NewCipher(key[:len(key)/2])
	if err != nil {
		panic(err)
	}
	xts(key, iv, unit, data.Encrypt)
}

// DecryptIV is the inverse of EncryptIV.
func DecryptIV(key []byte, iv [aes.BlockSize]byte, unit []byte) {
	data, err := aes.NewCipher(key[:len(key)/2])
	if err != nil {
		panic(err)
	}
	xts(key, iv, unit, data.Decrypt)
}

//go:norace
func xts(key []byte, iv [aes.BlockSize]byte, unit []byte, block func(dst, src []byte)) {
	tweakKey, err := aes.NewCipher(key[len(key)/2:])
	if err != nil {
		panic(err)
	}
	if len(unit)%aes.BlockSize != 0 {
		panic("naive: data unit is not a multiple of 16 bytes")
	}
	var t [aes.BlockSize]byte
	tweakKey.Encrypt(t[:], iv[:])
	for len(unit) > 0 {
		b := unit[:aes.BlockSize]
		for i := range b {
			b[i] ^= t[i]
		}
		block(b, b)
		for i := range b {
			b[i] ^= t[i]
		}
		t = double(t)
		unit = unit[aes.BlockSize:]
	}
}

// double multiplies t by x in GF(2^128), as the standard orders the bits.
//
//go:norace
func double(t [aes.BlockSize]byte) [aes.BlockSize]byte {
	carry := byte(0)
	for i := range t {
		t[i], carry = t[i]<<1|carry, t[i]>>7
	}
	if carry != 0 {
		t[0] ^= 0x87
	}
	return t
}

func plain64(n uint64) (iv [aes.BlockSize]byte) {
	binary.LittleEndian.PutUint64(iv[:], n)
	return iv
}
