package history

import (
	"crypto/aes"
	"encoding/binary"
	"fmt"

	"keyway/blkcrypto"
	"keyway/test/naive"
)

// A cipher is a key as the model knows it: the bytes that encrypt, and how.
type cipher struct {
	cfg      blkcrypto.Config
	key      []byte // of a wrapped key: what the hardware derives from it
	adiantum *naive.Adiantum
}

func newCipher(cfg blkcrypto.Config, key []byte) *cipher {
	c := &cipher{cfg: cfg, key: key}
	if cfg.Mode == blkcrypto.Adiantum {
		a := naive.NewAdiantum(key, 12)
		c.adiantum = &a
	}
	return c
}

// step is by how much the numbers of adjoining data units differ.
func (c *cipher) step() uint64 {
	if c.cfg.Numbering == blkcrypto.BySector {
		return uint64(c.cfg.DataUnitSize / sector)
	}
	return 1
}

// encrypt returns the ciphertext of whole data units, the first numbered dun.
func (c *cipher) encrypt(dun [4]uint64, data []byte) []byte {
	unit := c.cfg.DataUnitSize
	out := make([]byte, len(data))
	for at := 0; at < len(data); at += unit {
		c.one(out[at:at+unit], data[at:at+unit], dun)
		dun = plus(dun, c.step())
	}
	return out
}

func (c *cipher) one(dst, src []byte, dun [4]uint64) {
	var iv [32]byte
	for i, limb := range dun {
		binary.LittleEndian.PutUint64(iv[8*i:], limb)
	}
	switch c.cfg.Mode {
	case blkcrypto.AES256XTS, blkcrypto.AES192XTS, blkcrypto.AES128XTS:
		copy(dst, src)
		naive.EncryptIV(c.key, [16]byte(iv[:16]), dst)
	case blkcrypto.SM4XTS:
		naive.SM4XTS(dst, src, c.key, len(src), dun, false)
	case blkcrypto.AES128CBCESSIV:
		naive.ESSIV(dst, src, c.key, len(src), [2]uint64(dun[:2]), false)
	case blkcrypto.Adiantum:
		c.adiantum.Crypt(dst, src, iv[:], false)
	default:
		panic(fmt.Sprintf("history: mode %v", c.cfg.Mode))
	}
}

// plus adds with carry through all limbs.
func plus(dun [4]uint64, n uint64) [4]uint64 {
	for i := range dun {
		dun[i] += n
		if dun[i] >= n {
			break
		}
		n = 1
	}
	return dun
}

// width is how many bytes a number needs.
func width(dun [4]uint64) int {
	for i := 31; i > 0; i-- {
		if dun[i/8]>>(i%8*8)&0xff != 0 {
			return i + 1
		}
	}
	return 1
}

// derived is the key that the hardware makes of a wrapped one: SP 800-108 in
// counter mode over AES-256-CMAC (blkcrypto.md, section 10.4).
func derived(raw []byte) []byte {
	label := []byte{0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x20}
	context := append([]byte("inline encryption key"), 0, 0, 0, 0, 0, 0, 0x02, 0x43, 0x00, 0x82, 0x50, 0, 0, 0, 0)
	var out []byte
	for i := uint32(1); i <= 4; i++ {
		in := append(binary.BigEndian.AppendUint32(nil, i), label...)
		in = append(append(in, 0), context...)
		out = append(out, cmac(raw, binary.BigEndian.AppendUint32(in, 512))...)
	}
	return out
}

// cmac is RFC 4493 with a key of any AES size.
func cmac(key, m []byte) []byte {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	sub := make([]byte, 16)
	b.Encrypt(sub, sub)
	sub = double(sub)
	whole := len(m) > 0 && len(m)%16 == 0
	if !whole {
		sub = double(sub)
		m = append(append([]byte(nil), m...), 0x80)
		m = append(m, make([]byte, -len(m)&15)...)
	}
	mac := make([]byte, 16)
	for i := 0; i < len(m); i += 16 {
		for j := range mac {
			mac[j] ^= m[i+j]
			if i+16 == len(m) {
				mac[j] ^= sub[j]
			}
		}
		b.Encrypt(mac, mac)
	}
	return mac
}

// double multiplies by x in GF(2^128), the first byte first.
func double(b []byte) []byte {
	out := make([]byte, 16)
	for i := range b {
		out[i] = b[i] << 1
		if i < 15 {
			out[i] |= b[i+1] >> 7
		}
	}
	out[15] ^= 0x87 * (b[0] >> 7)
	return out
}
