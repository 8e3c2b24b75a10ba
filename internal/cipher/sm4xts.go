package cipher

import (
	"keyway/blkcrypto"
	"keyway/sm4xts"
)

func init() { register(blkcrypto.SM4XTS, newSM4XTS) }

// sm4XTS numbers data units by the low 128 bits of the DUN: blkcrypto admits no
// more for this mode.
type sm4XTS struct{ *sm4xts.Cipher }

func newSM4XTS(unit int, key []byte) (Cipher, error) {
	c, err := sm4xts.NewAllowWeak(key, unit)
	if err != nil {
		return nil, err
	}
	return sm4XTS{c}, nil
}

// Hot: no allocation.
func (c sm4XTS) Encrypt(dst, src []byte, dun blkcrypto.DUN) {
	c.Cipher.Encrypt(dst, src, [2]uint64{dun[0], dun[1]})
}

// Hot: no allocation.
func (c sm4XTS) Decrypt(dst, src []byte, dun blkcrypto.DUN) {
	c.Cipher.Decrypt(dst, src, [2]uint64{dun[0], dun[1]})
}

// Hot: no allocation.
func (c sm4XTS) EncryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64) {
	c.Cipher.EncryptStep(dst, src, [2]uint64{dun[0], dun[1]}, step)
}

// Hot: no allocation.
func (c sm4XTS) DecryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64) {
	c.Cipher.DecryptStep(dst, src, [2]uint64{dun[0], dun[1]}, step)
}
