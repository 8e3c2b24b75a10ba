package cipher

import (
	"keyway/blkcrypto"
	"keyway/essiv"
)

func init() { register(blkcrypto.AES128CBCESSIV, newESSIV) }

// aesESSIV numbers data units by the low 128 bits of the DUN: blkcrypto admits no
// more for this mode.
type aesESSIV struct{ *essiv.Cipher }

func newESSIV(unit int, key []byte) (Cipher, error) {
	c, err := essiv.New(key, unit)
	if err != nil {
		return nil, err
	}
	return aesESSIV{c}, nil
}

// Hot: no allocation.
func (c aesESSIV) Encrypt(dst, src []byte, dun blkcrypto.DUN) {
	c.Cipher.Encrypt(dst, src, [2]uint64{dun[0], dun[1]})
}

// Hot: no allocation.
func (c aesESSIV) Decrypt(dst, src []byte, dun blkcrypto.DUN) {
	c.Cipher.Decrypt(dst, src, [2]uint64{dun[0], dun[1]})
}

// Hot: no allocation.
func (c aesESSIV) EncryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64) {
	c.Cipher.EncryptStep(dst, src, [2]uint64{dun[0], dun[1]}, step)
}

// Hot: no allocation.
func (c aesESSIV) DecryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64) {
	c.Cipher.DecryptStep(dst, src, [2]uint64{dun[0], dun[1]}, step)
}
