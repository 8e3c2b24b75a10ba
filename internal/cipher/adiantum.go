package cipher

import (
	"keyway/adiantum"
	"keyway/blkcrypto"
)

func init() { register(blkcrypto.Adiantum, newAdiantum) }

// wide numbers data units by the whole DUN. Whatever changes or watches the memory
// meanwhile, the cipher reads the source once and writes the destination once, with
// nothing but the result: see package adiantum.
type wide struct{ *adiantum.Cipher }

func newAdiantum(unit int, key []byte) (Cipher, error) {
	c, err := adiantum.New(key, unit)
	if err != nil {
		return nil, err
	}
	return wide{c}, nil
}

// Hot: no allocation.
func (c wide) Encrypt(dst, src []byte, dun blkcrypto.DUN) { c.Cipher.Encrypt(dst, src, dun) }

// Hot: no allocation.
func (c wide) Decrypt(dst, src []byte, dun blkcrypto.DUN) { c.Cipher.Decrypt(dst, src, dun) }

// Hot: no allocation.
func (c wide) EncryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64) {
	c.Cipher.EncryptStep(dst, src, dun, step)
}

// Hot: no allocation.
func (c wide) DecryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64) {
	c.Cipher.DecryptStep(dst, src, dun, step)
}
