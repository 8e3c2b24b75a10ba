package naive

import "crypto/cipher"

// CTS transforms a message of 16 bytes or more by CBC with ciphertext stealing CS3,
// by what the definition says of the last two blocks and the standard library's CBC.
func CTS(b cipher.Block, src []byte, iv [16]byte, decrypt bool) []byte {
	n := len(src)
	if n == 16 {
		out := make([]byte, 16)
		if decrypt {
			cipher.NewCBCDecrypter(b, iv[:]).CryptBlocks(out, src)
		} else {
			cipher.NewCBCEncrypter(b, iv[:]).CryptBlocks(out, src)
		}
		return out
	}
	d := (n-1)%16 + 1 // bytes of the last block
	if !decrypt {
		padded := append(append([]byte(nil), src...), make([]byte, 16-d)...)
		cipher.NewCBCEncrypter(b, iv[:]).CryptBlocks(padded, padded)
		front, before, last := padded[:len(padded)-32], padded[len(padded)-32:len(padded)-16], padded[len(padded)-16:]
		return append(append(append([]byte(nil), front...), last...), before[:d]...)
	}
	front, last, stolen := src[:n-16-d], src[n-16-d:n-d], src[n-d:]
	z := make([]byte, 16)
	b.Decrypt(z, last)
	before := append(append([]byte(nil), stolen...), z[d:]...)
	whole := append(append(append([]byte(nil), front...), before...), last...)
	cipher.NewCBCDecrypter(b, iv[:]).CryptBlocks(whole, whole)
	return whole[:n]
}
