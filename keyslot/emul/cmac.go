package emul

import (
	"crypto/subtle"
	"encoding/binary"

	"keyway/internal/aes"
	"keyway/internal/secret"
)

// A mac is a key for AES-CMAC (NIST SP 800-38B), the one primitive of what
// follows: key derivation and key wrapping.
type mac struct {
	blocks *aes.Blocks
	sub    *secret.Buffer // the two subkeys, for a whole and for a padded last block
}

func newMAC(key []byte) (*mac, error) {
	b, err := aes.NewBlocks(key)
	if err != nil {
		return nil, err
	}
	sub, err := secret.New(2 * aes.BlockSize)
	if err != nil {
		b.Wipe()
		return nil, err
	}
	k1, k2 := sub.Bytes()[:aes.BlockSize], sub.Bytes()[aes.BlockSize:]
	b.Encrypt(k1, k1)
	double(k1, k1)
	double(k2, k1)
	return &mac{b, sub}, nil
}

func (m *mac) wipe() {
	m.blocks.Wipe()
	m.sub.Wipe()
}

// double multiplies by x in GF(2^128), big-endian as CMAC and SIV have it.
func double(dst, src []byte) {
	hi, lo := binary.BigEndian.Uint64(src), binary.BigEndian.Uint64(src[8:])
	carry := hi >> 63
	binary.BigEndian.PutUint64(dst, hi<<1|lo>>63)
	binary.BigEndian.PutUint64(dst[8:], lo<<1^carry*0x87)
}

// sum returns the CMAC of message.
func (m *mac) sum(message []byte) (tag [aes.BlockSize]byte) {
	for len(message) > aes.BlockSize {
		subtle.XORBytes(tag[:], tag[:], message[:aes.BlockSize])
		m.blocks.Encrypt(tag[:], tag[:])
		message = message[aes.BlockSize:]
	}
	sub := m.sub.Bytes()[:aes.BlockSize]
	if len(message) < aes.BlockSize {
		sub = m.sub.Bytes()[aes.BlockSize:]
		tag[len(message)] ^= 0x80
	}
	subtle.XORBytes(tag[:], tag[:], sub)
	subtle.XORBytes(tag[:], tag[:], message)
	m.blocks.Encrypt(tag[:], tag[:])
	return tag
}
