package cipher

import (
	"keyway/blkcrypto"
	"keyway/xts"
)

func init() {
	register(blkcrypto.AES128XTS, newAESXTS)
	register(blkcrypto.AES192XTS, newAESXTS)
	register(blkcrypto.AES256XTS, newAESXTS)
}

// aesXTS numbers data units by the low 128 bits of the DUN: blkcrypto admits no
// more for these modes.
type aesXTS struct{ *xts.Cipher }

func newAESXTS(unit int, key []byte) (Cipher, error) {
	c, err := xts.NewAllowWeak(key, unit)
	if err != nil {
		return nil, err
	}
	return aesXTS{c}, nil
}

// Hot: no allocation.
func (c aesXTS) Encrypt(dst, src []byte, dun blkcrypto.DUN) {
	c.Cipher.Encrypt(dst, src, [2]uint64{dun[0], dun[1]})
}

// Hot: no allocation.
func (c aesXTS) Decrypt(dst, src []byte, dun blkcrypto.DUN) {
	c.Cipher.Decrypt(dst, src, [2]uint64{dun[0], dun[1]})
}

// Hot: no allocation.
func (c aesXTS) EncryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64) {
	c.Cipher.EncryptStep(dst, src, [2]uint64{dun[0], dun[1]}, step)
}

// Hot: no allocation.
func (c aesXTS) DecryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64) {
	c.Cipher.DecryptStep(dst, src, [2]uint64{dun[0], dun[1]}, step)
}
